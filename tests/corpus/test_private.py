"""Private data: every form is found, and nothing that only looks like it."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trivium.corpus.banking import IBAN_LENGTHS, iban_holds
from trivium.corpus.identities import luhn
from trivium.corpus.private import KINDS, redact, spans


@given(st.text("0123456789", min_size=11, max_size=18))
def test_luhn_has_one_check_digit_and_sees_every_single_error(digits):
    valid = [digits + check for check in "0123456789" if luhn(digits + check)]
    assert len(valid) == 1
    for place in range(len(digits)):
        for digit in "0123456789":
            if digit != digits[place]:
                assert not luhn(valid[0][:place] + digit + valid[0][place + 1 :])


def iban(country, rng):
    body = "".join(rng.choice("0123456789") for _ in range(IBAN_LENGTHS[country] - 4))
    number = int("".join(str(int(c, 36)) for c in body + country + "00"))
    return f"{country}{98 - number % 97:02}{body}"


@given(st.sampled_from(sorted(IBAN_LENGTHS)), st.integers(0, 10**6))
def test_iban_checksums_see_every_single_error(country, seed):
    rng = random.Random(seed)
    good = iban(country, rng)
    assert iban_holds(good)
    place = rng.randrange(4, len(good))
    assert not iban_holds(good[:place] + str((int(good[place]) + rng.randint(1, 9)) % 10) + good[place + 1 :])
    assert not iban_holds(good + "0") and not iban_holds(good[:-1])


@given(st.sampled_from(sorted(IBAN_LENGTHS)), st.integers(0, 10**6), st.booleans())
def test_ibans_are_replaced_up_to_their_end(country, seed, grouped):
    value = iban(country, random.Random(seed))
    if grouped:
        value = " ".join(value[k : k + 4] for k in range(0, len(value), 4))
    text, counts = redact(f"Pay to {value} before May, or to {value}.")
    assert text == "Pay to <IBAN> before May, or to <IBAN>."
    assert counts == {"iban": 2}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Write to ann.lee+news@mail.example.co.uk.", "Write to <EMAIL>."),
        ("(a_b@x-y.org)", "(<EMAIL>)"),
        ("邮箱是zhang@example.com请回复", "邮箱是<EMAIL>请回复"),
        ("from 203.0.113.7:8080 to 10.0.0.1.", "from <IP_ADDRESS>:8080 to <IP_ADDRESS>."),
        ("host 2001:db8::8a2e:370:7334, or fe80::1", "host <IP_ADDRESS>, or <IP_ADDRESS>"),
        ("::ffff:192.0.2.128 is mapped", "<IP_ADDRESS> is mapped"),
        ("card 4111 1111 1111 1111, or 378282246310005", "card <CARD>, or <CARD>"),
        ("5555-5555-5555-4444", "<CARD>"),
        ("Call +44 20 7946 0958 or (212) 555-0123.", "Call <PHONE> or <PHONE>."),
        ("212-555-0187 ext. 12, 1.212.555.0187", "<PHONE>, <PHONE>"),
        ("London 020 7946 0018 today", "London <PHONE> today"),
        ("手机13812345678,电话010-62345678。", "手机<PHONE>,电话<PHONE>。"),
        ("Call 0489 25 37 29 or 001-518-640-0854.", "Call <PHONE> or <PHONE>."),
        ("my card 630427373398 is lost", "my card <CARD> is lost"),
        ("SSN 219-09-9999", "SSN <NATIONAL_ID>"),
        ("身份证11010519491231002X。", "身份证<NATIONAL_ID>。"),
        ("CPF 111.444.777-35, DNI 12345678Z", "CPF <NATIONAL_ID>, DNI <NATIONAL_ID>"),
        ("RSSMRA85T10A562S and 811228-9874", "<NATIONAL_ID> and <NATIONAL_ID>"),
        ("2341 2341 2346, 1 85 05 78 006 084 91", "<NATIONAL_ID>, <NATIONAL_ID>"),
        ("AB 12 34 56 C", "<NATIONAL_ID>"),
        ("AKIAIOSFODNN7EXAMPLE", "<SECRET>"),
        ("api_key = 'a8f5f167f44f4964e6c9'", "api_key = '<SECRET>'"),
        ("-----BEGIN RSA PRIVATE KEY-----\n" + "MIIEow\n" * 9 + "-----END RSA PRIVATE KEY-----", "<SECRET>"),
        ("Phone: 555 0142 in the evening", "Phone: <PHONE> in the evening"),
    ],
)
def test_found(text, expected):
    assert redact(text)[0] == expected


@pytest.mark.parametrize(
    "text",
    [
        "27 + 35: 7 + 5 = 12, 20 + 30 = 50, 50 + 12 = 62",
        "1 2 3 4 5 6 7 8 9 10 11 12",
        "from 1999-2003 and 2024-01-15",
        "3.14159265358979",
        "at 12:30:45 or 7:05",
        "std::vector<int> and a::b::c",
        "version 1.2.3.4 of it",
        "v10.0.19041.1",
        "4111 1111 1111 1112",
        "1234567890123456",
        "0000 0000 0000 0000",
        "DE89370400440532013001",
        "ISBN 978-3-16-148410-0",
        "219-00-9999 and 11010519491231002Y, 12345678A",
        "111.444.777-36 or 2341 2341 2347",
        "the token economy = 12, password: hunter",
        "task 630427373398",
        "a@b and me @home",
        "x = y @ z.t",
        "127.0.0.1",
        "256.1.1.1",
        "1,234,567,890 people",
        "order 123456789012345678901234",
        "call f(1234) twice, phone home",
        "10 - 3 = 7 and 555 - 123 = 432",
        "The year 1845, page 1024.",
        "https://x.example/2024/01/15/12345678",
    ],
)
def test_left_alone(text):
    assert redact(text) == (text, {})


@pytest.mark.parametrize(
    "text",
    [
        "1" * 20_000,
        "+1" * 5000,
        "a." * 10_000 + "@",
        "A1" * 9000,
        ":" * 9000,
        "1 " * 9000,
        "call " * 4000,
        "x@" + "a-" * 9000,
        "DE89" + " 1" * 9000,
        "password=" * 4000,
        "-----BEGIN RSA PRIVATE KEY-----" * 500,
        "eyJ" * 9000,
    ],
)
def test_no_text_takes_long(text):
    redact(text)


def test_kinds_can_be_chosen():
    text = "ann@example.org 203.0.113.7"
    assert redact(text, [])[0] == text
    assert redact(text, ["ipv4"])[0] == "ann@example.org <IP_ADDRESS>"
    assert redact(text)[1] == {"email": 1, "ipv4": 1} and set(KINDS) == {
        "secret",
        "national_id",
        "email",
        "iban",
        "card",
        "ipv6",
        "ipv4",
        "phone",
    }


@given(st.text())
def test_redaction_happens_once(text):
    once = redact(text)[0]
    assert redact(once)[0] == once
