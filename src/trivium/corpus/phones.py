"""Telephone numbers: by their form where it is unmistakable (international, American, Chinese, a leading zero), by a
word beside them where it is not. Years, prices, measures, versions and numbers that are named as something else stay.

Forms: ITU-T E.164 (country codes, at most 15 digits), the North American numbering plan, and China's plan (GB: mobiles
of 11 digits from 13 to 19, area codes 010, 02x and 03xx to 09xx, service numbers 400 and 800)."""

from __future__ import annotations

import re

COUNTRY_CODES = frozenset([
    "1", "7", "20", "27", "30", "31", "32", "33", "34", "36", "39", "40", "41", "43", "44", "45", "46", "47",
    "48", "49", "51", "52", "53", "54", "55", "56", "57", "58", "60", "61", "62", "63", "64", "65", "66", "81",
    "82", "84", "86", "90", "91", "92", "93", "94", "95", "98", "211", "212", "213", "216", "218", "220", "221",
    "222", "223", "224", "225", "226", "227", "228", "229", "230", "231", "232", "233", "234", "235", "236",
    "237", "238", "239", "240", "241", "242", "243", "244", "245", "246", "247", "248", "249", "250", "251",
    "252", "253", "254", "255", "256", "257", "258", "260", "261", "262", "263", "264", "265", "266", "267",
    "268", "269", "290", "291", "297", "298", "299", "350", "351", "352", "353", "354", "355", "356", "357",
    "358", "359", "370", "371", "372", "373", "374", "375", "376", "377", "378", "379", "380", "381", "382",
    "383", "385", "386", "387", "389", "420", "421", "423", "500", "501", "502", "503", "504", "505", "506",
    "507", "508", "509", "590", "591", "592", "593", "594", "595", "596", "597", "598", "599", "670", "672",
    "673", "674", "675", "676", "677", "678", "679", "680", "681", "682", "683", "685", "686", "687", "688",
    "689", "690", "691", "692", "800", "808", "850", "852", "853", "855", "856", "870", "878", "880", "881",
    "882", "883", "886", "888", "960", "961", "962", "963", "964", "965", "966", "967", "968", "970", "971",
    "972", "973", "974", "975", "976", "977", "979", "992", "993", "994", "995", "996", "998"
])
"""ITU-T E.164, annex: no code is the beginning of another one."""

_EXTENSION = r"(?: [ ]? (?:x|ext\.?|extension|转|轉|分机) [ ]? \d{1,6} )?"
CHINA = re.compile(rf"""
    (?<![\w.+]) (?P<value> (?:
        (?: (?: [(（]? (?:\+|00)? 86 [)）]? ) [ -]{{0,2}} )?
        (?: [(（]? 1[3-9]\d [)）]? (?: [ .-]? \d{{4}} [ .-]? \d{{4}} | [ -] \d{{3}} [ -] \d{{5}} )  # 138 1234 5678
          | 1[3-9]\d{{2}} [ -] \d{{3}} [ -] \d{{4}} )
      | (?: (?:\+|00)? 86 [ -]? )? [(（] 0 (?:10|2\d|[3-9]\d\d) [)）] [ -]? \d{{3,4}} [ -]? \d{{3,4}}  # (010)12345678
      | (?: (?:\+|00)? 86 [ -]? )? (?<!\d) 0 (?:10|2\d|[3-9]\d\d) [ -]{{1,2}} \d{{3,4}} [ -]? \d{{3,4}}
      | (?:\+|00)? 86 [ -] (?:10|2\d|[3-9]\d\d) [ -] \d{{3,4}} [ -]? \d{{3,4}}  # 86-10-12345678
      | [48]00 (?: [ -] \d{{3}} [ -] \d{{4}} | [ -] \d{{4}} [ -] \d{{3}} | \d [ -] \d{{3}} [ -] \d{{3}} | [ -] \d{{7}} )
    ) (?: -\d{{1,4}} (?!\d|[ ./-]\d) | {_EXTENSION} ) ) (?!\w|/[^\d(（+]|[.-]\d)""", re.VERBOSE | re.ASCII)
PHONE = re.compile(rf"""
    (?<![\w.+/-]) (?<!\d[ ]) (?P<value> (?:
        \+ [1-9] \d{{0,2}}+ (?: [ .-]? [(]? \d{{1,5}}+ [)]? ){{2,6}}+                 # international
      | (?:1[ .-])? \(\d{{3}}\) [ ]? \d{{3}} [ .-] \d{{4}}                          # (212) 555-0123
      | (?:1[ .-])? [2-9]\d{{2}} (?P<mark>[.-]) \d{{3}} (?P=mark) \d{{4}}            # 212-555-0123
      | (?:\(0[1-9]\d{{0,3}}\)|0[1-9]\d{{0,3}}) [ /-] \d{{3,4}} [ -] \d{{3,4}} (?:[ -]\d{{2,4}})?      # 020 7946 0123
      | 0[1-9]\d{{0,3}} [ /-] \d{{2,3}} [ ] \d{{2}} [ ] \d{{2}}                       # 0489 25 37 29
      | 0[1-9] (?P<pair>[ .-]) \d{{2}} (?: (?P=pair) \d{{2}} ){{3}}                   # 01.84.17.61.18
      | 0[1-9]\d{{1,3}} - \d{{6,8}}                                               # 0961-7596216
      | 00[1-9]\d{{0,2}} (?: [ .-] \(? \d{{2,5}}+ \)? ){{2,5}}                       # 001-518-640-0854
    ) {_EXTENSION} ) (?! [\w/] | [ .-]\d )""", re.VERBOSE | re.ASCII)

_VALUE = r"""(?P<value> (?: [+(（]? \d{2,8}+ [)）]? (?: [ .-]{1,2} \(? \d{2,8}+ \)? ){1,5}+ | \(?\+?\d{2,4}\)\d{5,10}+
    | \+?\d{7,15}+ ) (?: [ ]? (?:x|ext\.?|extension) [ ]? \d{1,6} )? )"""
NAMED_PHONE = re.compile(rf"""
    (?: (?<![A-Za-z<])
        (?: (?P<weak> reach(?:ed)? | contact | answering | messages? | text | ring | desk | whatsapp | sms )
          | tel | telephones? | phones? | mobiles? | cell (?:phone)? | cellular | fax | call | dial | hotline | landline
          | t[ée]l[ée]phone | tel[ée]fon[oe]? | portable | handy | m[óo]vil | celular )
        (?![A-Za-z])
        (?P<gap> (?: [ \t]? (?: [.:：,=\#*-] | \n | (?<![A-Za-z]) (?: numbers? | no | num | nr | is | are | at | on | to
          | me | us | him | her | them | back | now | today | my | our | his | your | the | their | this | office | home
          | work | cell | mobile | phone | telephone | tel | fax | line | free | toll | registered | personal | direct
          | new | old | or | and | via | by | please ) (?![A-Za-z]) ) ){{0,10}}+ \s{{0,2}} )
      | (?: 电话 | 电話 | 電話 | 手机 | 手機 | 座机 | 固话 | 传真 | 傳真 | 热线 | 熱線 | 拨打 | 致电 | 联系方式 | 联系人
          | 联系我 | 携帯 | 전화 | 휴대폰 | [Тт]ел (?:ефон)? )
        (?: 号码 | 号 | 號碼 | 是 | 为 | 為 | 请 | 打 | 或 | 咨询 | 联系 | 客服 | 服务 | 报名 | 预约 | 及 | 与 | 和
          | 微信 | 同
          | 24小时 | 电话 | 手机 | 传真 | [(（)）:：/、\s_~.,，-] ){{0,8}}+ )
    {_VALUE} (?! \w | [.:,-]\d )""", re.VERBOSE | re.IGNORECASE | re.ASCII)
LABELLED_PHONE = re.compile(rf"""
    (?<![\w.+/-]) (?<!\d[ ]) {_VALUE} [ ]?-?
    (?:office|fax|mobile|cell|home|work|desk|phone|tel) (?= [ ]* (?:$|[\n\r\\,;]) )""",
    re.VERBOSE | re.IGNORECASE | re.ASCII | re.MULTILINE)

_DATE = re.compile(r"(?:19|20)\d\d[ .-]\d\d[ .-]\d\d|\d\d[ .-]\d\d[ .-](?:19|20)\d\d|(?:1[5-9]|20)\d\d[ ]?[/-]{1,2}"
                   r"[ ]?(?:1[5-9]|20)\d\d(?:-\d\d)?")
_YEARS = re.compile(r"(?:1[5-9]|20)\d\d[ .]{1,2}\d")
_THOUSANDS = re.compile(r"\+?\d{1,3}(?:[ ]\d{3})+")
_RANGE = re.compile(r"(\d+)-(\d+)")
UNIT = re.compile(r"""[ ]? (?: [=*元円块圆万亿人名个件股吨斤克米里升次条位户台辆套篇年月日天岁度％%°€£¥￥$]
    | (?: yuan | rmb | cny | usd | eur | gbp | dollars? | euros? | pounds? | people | persons | users | inhabitants
        | times | years | days | hours | minutes | seconds | ms | mm | cm | km | kg | m | g | kb | mb | gb | bytes
          | tokens
        | words | units | pieces | views | votes | points | percent | miles | feet | tons | votes | cells | copies )
      (?![A-Za-z]) )""", re.VERBOSE | re.IGNORECASE)
OTHERWISE = re.compile(r"""
    (?: 订单 | 訂單 | 单号 | 编号 | 编码 | 編號 | 序列 | 流水 | 快递 | 运单 | 物流 | 条形码 | 条码 | 学号 | 工号
      | 证号 | 股票 | 代码
      | 基金 | 专利 | 合同 | 发票 | 时间戳 | 型号 | 批号 | 群号? | 合计 | 总计 | 共计 | 金额 | 总额 | 价格 | 售价
      | 书号 | 刊号 | 批准文号 | 户号 | 邮编 | 身份证
      | (?<![A-Za-z]) (?: orders? | invoice | serial | tracking | ticket | barcode | bar[ ]code | ref | reference
        | model | part | item | patent | isbn | issn | ean | upc | gtin | sku | id | uid | timestamp | doi | oid | case
        | version | pmid | arxiv | sizes? | score | ratio ) (?:-?1[03])? (?![A-Za-z]) )
    [ ]? (?: 号码 | 号 | 码 | 為 | 为 | 是 | no\.? | numbers? | nr\.? | id | code | is | [:：\#=(（"'-]
      | [ ] ){0,4} $""",
                       re.VERBOSE | re.IGNORECASE)
_CURRENCY = re.compile(r"(?:[$€£¥￥]|US\$|RMB|CNY|USD|EUR|GBP)[ ]?$", re.IGNORECASE)
_MOBILE = re.compile(r"(?:\+?86[ -]?)?1[3-9]\d[ -]?\d{4}[ -]?\d{4}", re.ASCII)
_SECOND = re.compile(rf"{_MOBILE.pattern}|\d{{7,8}}(?!\d)|0\d{{2,3}}-?\d{{7,8}}|[48]00", re.ASCII)
_WORD = re.compile(r"(?:tel|phone|fax|mobile|电话|手机|传真)[a-z]*[ ]?[:：=]?[ ]{0,4}$", re.IGNORECASE)


def otherwise(text: str, start: int) -> bool:
    """Whether a word before the place names what follows as something that is not private, such as an order."""
    before = text[max(0, start - 32):start]
    return OTHERWISE.search(before) is not None or _CURRENCY.search(before) is not None


def phone(match: re.Match[str]) -> int:
    """How many characters of a number in an unmistakable form are one: all of them, or 0."""
    value = match["value"]
    number = _number(value)
    if not 7 <= len(number) <= (15 if value.startswith(("+", "00")) else 12) or _DATE.fullmatch(value):
        return 0
    if value.startswith(("+", "00")) and not _international(match, number):
        return 0
    return 0 if _counts(match) else len(value)


def chinese_phone(match: re.Match[str], found: int = 0) -> int:
    """How many characters of a number in China's forms are one. It may follow one that ends at ``found``, or stand
    beside another mobile number, and beside no other number."""
    text, value, start = match.string, match["value"], match.start("value")
    end = start + len(value)
    if _counts(match):
        return 0
    if start - 1 == found > 0:
        pass
    elif text[start - 1:start] in ("/", "-") and start > 1 and text[start - 2] not in ">)" and not _ends_in_mobile(
            text[max(0, start - 16):start - 1]) and (text[start - 2].isascii() or text[start - 2].isdigit()):
        return 0  # a path, or the end of a longer number
    elif text[start - 1:start] == " " and start > 1 and text[start - 2].isdigit() and not _ends_in_mobile(
            text[max(0, start - 16):start - 1]):
        return 0
    follows = text[end:end + 2]
    beside = _SECOND if follows[:1] == "/" else _MOBILE
    if len(follows) > 1 and follows[0] in " /" and follows[1].isdigit() and not beside.match(text, end + 1):
        return 0
    return len(value)


def named_phone(match: re.Match[str]) -> int:
    """How many characters of a number beside a word for telephones are one."""
    value = match["value"]
    number, named = _number(value), match.groupdict()
    gap = named.get("gap") or ""
    if named.get("weak") and not re.search(r"\b(?:at|on|to|registered)\b|[:：]", gap, re.IGNORECASE):
        return 0
    if not 7 <= len(number) <= (15 if value.startswith(("+", "00")) else 12) or _DATE.fullmatch(value):
        return 0
    if _YEARS.match(value) and not re.search(r"[:：]", match[0][:-len(value)]):
        return 0  # a journal's year, volume and page, or a list of years
    if (span := _RANGE.fullmatch(value)) and len(span[1]) == len(span[2]) and int(span[1]) < int(
            span[2]) and not re.search(r"[:：]", match[0][:-len(value)]):
        return 0
    return 0 if _unit(match.string, match.end("value")) else len(value)


def _number(value: str) -> str:
    """The digits before an extension."""
    return re.sub(r"\D", "", re.split("[ex转轉分]", value, maxsplit=1, flags=re.IGNORECASE)[0])


def _ends_in_mobile(before: str) -> bool:
    return any(_MOBILE.fullmatch(before[k:]) for k in range(max(0, len(before) - 16), len(before)))


def _unit(text: str, end: int) -> bool:
    return UNIT.match(text, end) is not None


def _counts(match: re.Match[str]) -> bool:
    """Whether the number counts or names something else, by the words around it."""
    return _unit(match.string, match.end("value")) or otherwise(match.string, match.start("value"))


def _international(match: re.Match[str], number: str) -> bool:
    """Whether a number after ``+`` or ``00`` begins with a country's code and is long enough, and is no decimal."""
    value = match["value"]
    number = number.removeprefix("00") if value.startswith("00") else number
    code = next((number[:size] for size in (1, 2, 3) if number[:size] in COUNTRY_CODES), None)
    if code is None or len(number) < (8 if value[0] == "+" else 10) or number.endswith("00000"):
        return False
    if code == "1":
        return len(number) == 11 and number[1] in "23456789" and not (
            value[:3] == "+1." and value.count(".") == 1 and not _labelled(match))
    if "." in value and re.search("[ -]", value):
        return False
    if re.fullmatch(r"\+\d{1,3}\.\d+", value):
        return _labelled(match)
    return not (_THOUSANDS.fullmatch(value) and number.endswith("000"))


def _labelled(match: re.Match[str]) -> bool:
    start = match.start("value")
    return _WORD.search(match.string[max(0, start - 16):start]) is not None
