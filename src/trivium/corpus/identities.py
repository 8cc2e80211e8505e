"""What stands for a person: national identity numbers, proved by their checksums where they have any; the plates of
cars; accounts and homes that are named as such."""

from __future__ import annotations

import re
from collections.abc import Callable

NATIONAL_ID = re.compile(r"""
    (?<![\w.+/-]) (?<!\d[ ]) (?P<value>
        (?P<us> \d{3}-\d{2}-\d{4} )                                           # United States: 219-09-9999
      | (?P<cn> [1-8]\d{5} (?P<gap>[ -]?) (?:18|19|20)\d{2}[01]\d[0-3]\d (?P=gap) \d{3}[\dXx] )  # 11010519491231002X
      | (?P<br> \d{3}\.\d{3}\.\d{3}-\d{2} )                                # Brazil: 111.444.777-35
      | (?P<fr> [12][ ]?\d{2}[ ]?[01]\d[ ]?(?:\d{2}|2[AB])[ ]?\d{3}[ ]?\d{3}[ ]?\d{2} )   # France
      | (?P<in> [2-9]\d{3}[ ]\d{4}[ ]\d{4} )                               # India
      | (?P<se> \d{6}[+-]\d{4} )                                           # Sweden: 811228-9874
      | (?P<es> (?:\d{8}|[XYZ]\d{7})[ -]?[A-Z] )                           # Spain: 12345678Z
    ) (?![\w-]) (?![ ]\d)""", re.VERBOSE | re.ASCII)
LETTERED_ID = re.compile(r"""
    (?<![\w.+/-]) (?P<value>
        (?P<it> [A-Z]{6}\d{2}[ABCDEHLMPRST]\d{2}[A-Z]\d{3}[A-Z] )          # Italy: RSSMRA85T10A562S
      | (?P<gb> [ABCEGHJ-PRSTW-Z][ABCEGHJ-NPRSTW-Z][ ]\d{2}[ ]\d{2}[ ]\d{2}[ ][ABCD] )    # United Kingdom
      | (?P<hk> [A-Z]{1,2}\d{6}[(（][\dA][)）] )                            # Hong Kong: A123456(3)
    ) (?![\w-]) (?![ ]\d)""", re.VERBOSE | re.ASCII)
NAMED_ID = re.compile(r"""
    (?: (?: 身份证 | 身分證 | 身份證 | 公民身份号码 | 证件号 | 护照 | 護照 | 通行证 | 驾驶证 | 驾照 | 军官证 )
        (?: 件 | 号码 | 号 | 號碼 | 字號 | 编号 | 是 | 为 | [:：(（\s] ){0,5}+
      | (?<![A-Za-z<]) passport (?: [ ] (?: number | no\.? | nr\.? | is | \# ) | [:#] ){0,3}+ [ ]{0,2} )
    (?P<value> [1-8]\d{5}[ -]?(?:18|19|20)\d{2}[01]\d[0-3]\d[ -]?\d{3}[\dXx]  |  [1-8]\d{5}\d\d[01]\d[0-3]\d\d{3}
      | [A-Z][12]\d{8}  |  [A-Z]{1,2}\d{7,8} ) (?![\w-])""", re.VERBOSE | re.ASCII)
"""What follows a word for papers: a Chinese number even if its check digit is mistyped or, before 1999, there was none;
a number of Taiwan; a passport or a permit."""

PLATE = re.compile(r"""
    (?P<value> [京津沪渝冀豫云辽黑湘皖鲁新苏浙赣鄂桂甘晋蒙陕吉闽贵粤青藏川宁琼] [ ]? [A-HJ-NP-Z] [ ]? [·•・.\-]? [ ]?
      (?: [DABCEFGHJK][A-HJ-NP-Z0-9]\d{4} | \d{5}[DABCEFGHJK]              # new energy: small and large cars
        | (?= (?:[A-HJ-NP-Z]?\d){3} | [A-HJ-NP-Z]{0,2}\d{3} | \d[A-HJ-NP-Z]{2}\d{2} | \d{2}[A-HJ-NP-Z]{2}\d | \d{3} )
          [A-HJ-NP-Z0-9]{4} [A-HJ-NP-Z0-9挂学警港澳领] ) ) (?![A-Za-z0-9])""", re.VERBOSE | re.ASCII)
"""A car's plate in China (GA 36-2018): at most two letters among the last five, never I or O."""

ACCOUNT = re.compile(r"""
    (?: (?: (?<![A-Za-z]) QQ | 扣扣 ) (?: 号码 | 号 )? (?: [ ]?[:：是为] | (?<=号) | (?<=码) | [ ] | (?<=QQ) ) [ ]{0,2}
        (?P<qq> [1-9]\d{4,10}+ ) (?! \w | [.-]\d )
      | (?: 微信 | 薇信 | 微信号 | (?<![A-Za-z]) (?: WeChat | weixin | wx | vx ) )
        (?: (?: [ ]?(?:号码|号|ID|帐号|账号|id) [ ]? [:：是为]? | [ ]?[:：] ) [ ]{0,2}
            (?P<wx> [A-Za-z][\w-]{5,19}+ ) (?! [\w.@] ) | (?P<wxid> wxid_\w{6,20}+ ) )
    )""", re.VERBOSE | re.ASCII | re.IGNORECASE)
"""An account of QQ or WeChat that is named as such."""
_NO_ACCOUNT = re.compile(r"(?:android|iphone|ipados|windows|version|official|client|download|wechat|weixin|https?|"
                         r"support|service|login|payment|mini)", re.IGNORECASE)

HOME = re.compile(r"""
    (?: (?: 住址 | 家庭地址 | 联系地址 | 通讯地址 | 通信地址 | 收货地址 | 收件地址 | 户籍地址 | 户籍所在地 | 居住地址
      | 详细地址
          | 邮寄地址 | 办公地址 | 公司地址 | 单位地址 | 现居地 | 居住地 | (?<![A-Za-z址件站箱IP载存]) 地址 )
        (?: [ ]?[:：] | 是 | 为 ) [ ]{0,2}
      | (?: 家住 | 现住 | 住在 | 居住在 | 居住于 | 搬到 ) (?: 了 )? )
    (?P<value> (?: [^\s<>，。；！？,;!?:：()（）《》“”"、] | [ ](?=[\u4e00-\u9fff\d])
      | [(（][^()（）<>\n]{1,20}[)）] ){6,60}+ )""",
                  re.VERBOSE)
"""Where somebody lives, after words that say so."""
_PLACE = re.compile(r"[省市区县州旗盟镇乡村街道路巷弄里号栋幢楼座室层单元小区花园公寓胡同大厦组队屯]")
_WAY = re.compile(r"[省市区县州旗镇乡村].{0,20}"
                  r"(?:路|街|道|巷|弄|胡同|村|小区|苑|园|里|庄|坊|社区).{0,12}?[\d一二三四五六七八九十]+[ ]?"
                  r"(?:号|栋|幢|弄|室|单元|组|队)")
_NUMBERED = re.compile(r"[\d一二三四五六七八九十]+[ ]?(?:号|栋|幢|楼|座|室|单元|弄|组|队|层|巷|-\d)|[村屯组]$")


def luhn(digits: str) -> bool:
    """Whether the last digit is the check digit of the others (ISO/IEC 7812-1)."""
    doubled = (int(d) * (1 + k % 2) for k, d in enumerate(reversed(digits)))
    return sum(d - 9 * (d > 9) for d in doubled) % 10 == 0


def national_id(match: re.Match[str]) -> int:
    """How many characters of the match are an identity number: all of them or, where the checksum fails, none."""
    country = next(name for name, value in match.groupdict().items() if value is not None and name in CHECKS)
    return len(match["value"]) if CHECKS[country](re.sub(r"[ .()（）-]", "", match["value"]).upper()) else 0


def account(match: re.Match[str]) -> int:
    """How many characters of the match, from its group on, are an account's name; common words are none."""
    name = match[str(match.lastgroup)]
    return 0 if _NO_ACCOUNT.match(name) else len(name)


def home(match: re.Match[str]) -> int:
    """How many characters of the match are an address: it names a place, and a number or a village in it."""
    value = match["value"].rstrip(" .-的")
    named = match[0][:-len(match["value"])].rstrip().endswith((":", "：", "是", "为"))
    places = len(_PLACE.findall(value))
    if named:
        return len(value) if places >= 2 and (_NUMBERED.search(value) or places >= 3) else 0
    return len(value) if _WAY.search(value) else 0


def _us(digits: str) -> bool:
    area, group, serial = digits[:3], digits[3:5], digits[5:]
    taxpayer = area >= "900" and group >= "50"
    return (area not in ("000", "666") and (area < "900" or taxpayer)) and group != "00" and serial != "0000"


def _cn(digits: str) -> bool:
    """ISO 7064, MOD 11-2."""
    total = sum(int(digit) * pow(2, 17 - place, 11) for place, digit in enumerate(digits[:17]))
    return "10X98765432"[total % 11] == digits[17] and _is_date(digits[10:12], digits[12:14])


def _hk(value: str) -> bool:
    """Letters count from 10 for A, an absent first one 36; weights 9 to 1, modulo 11."""
    letters = [int(c, 36) for c in value[:-7]]
    values = [*([36] if len(letters) == 1 else []), *letters, *(int(c) for c in value[-7:-1]), int(value[-1], 16)]
    return sum(weight * number for weight, number in zip(range(9, 0, -1), values, strict=True)) % 11 == 0


def _br(digits: str) -> bool:
    def check(count: int) -> int:
        return sum(int(digit) * (count + 1 - place) for place, digit in enumerate(digits[:count])) * 10 % 11 % 10
    return len(set(digits)) > 1 and check(9) == int(digits[9]) and check(10) == int(digits[10])


def _fr(digits: str) -> bool:
    number = int(digits[:13].replace("2A", "19").replace("2B", "18"))
    return "01" <= digits[3:5] <= "12" and 97 - number % 97 == int(digits[13:])


_VERHOEFF = [[0, 1, 2, 3, 4, 5, 6, 7, 8, 9], [1, 5, 7, 6, 2, 8, 3, 0, 9, 4]]
for _ in range(6):
    _VERHOEFF.append([_VERHOEFF[-1][_VERHOEFF[1][digit]] for digit in range(10)])


def _dihedral(a: int, b: int) -> int:
    """The product in the group of the pentagon's symmetries."""
    if a < 5:
        return (a + b) % 5 if b < 5 else 5 + (a + b) % 5
    return 5 + (a - b) % 5 if b < 5 else (a - b) % 5


def _in(digits: str) -> bool:
    """Verhoeff 1969."""
    total = 0
    for place, digit in enumerate(reversed(digits)):
        total = _dihedral(total, _VERHOEFF[place % 8][int(digit)])
    return total == 0


def _se(digits: str) -> bool:
    # who was not born there has a day above 60
    return _is_date(digits[2:4], f"{int(digits[4:6]) % 60:02}") and luhn(digits)


def _es(value: str) -> bool:
    number = int(value[:-1].translate(str.maketrans("XYZ", "012")))
    return "TRWAGMYFPDXBNJZSQVHLCKE"[number % 23] == value[-1]


_ODD = dict(zip("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ",
                (1, 0, 5, 7, 9, 13, 15, 17, 19, 21, 1, 0, 5, 7, 9, 13, 15, 17, 19, 21, 2, 4, 18, 20, 11, 3, 6, 8, 12,
                 14, 16, 10, 22, 25, 24, 23)))


def _it(value: str) -> bool:
    total = sum(_ODD[c] if place % 2 == 0 else int(c) if c.isdigit() else ord(c) - 65
                for place, c in enumerate(value[:15]))
    return chr(65 + total % 26) == value[15]


def _is_date(month: str, day: str) -> bool:
    return "01" <= month <= "12" and "01" <= day <= "31"


CHECKS: dict[str, Callable[[str], bool]] = {
    "hk": _hk, "us": _us, "cn": _cn, "br": _br, "fr": _fr, "in": _in, "se": _se, "es": _es, "it": _it,
    "gb": lambda value: value[:2] not in ("BG", "GB", "KN", "NK", "NT", "TN", "ZZ")
}
