"""Addresses of mailboxes and of computers. Versions of programs, pictures for sharp screens, and addresses that name
nobody (private networks, masks, loopback, public resolvers) are none."""

from __future__ import annotations

import ipaddress
import re

_LETTERS = "A-Za-zÀ-ÖØ-öø-ɏΆ-Ͽ\u0400-\u04ff"
EMAIL = re.compile(
    rf"(?<![\w.+%@{_LETTERS}-])\.{{0,8}}+(?P<value>[0-9_+%{_LETTERS}-][0-9_.+%{_LETTERS}-]{{0,63}}+@(?:[0-9{_LETTERS}][0-9_{_LETTERS}-]{{0,62}}+\.)"
    rf"{{1,8}}[{_LETTERS}]{{2,24}}+)(?![\w@])", re.ASCII)
WRITTEN_EMAIL = re.compile(
    r"(?<![\w.+%@-])(?P<value>[\w.+%-]{1,64}+[ ]?[(\[{][ ]?at[ ]?[)\]}][ ]?[A-Za-z0-9][\w-]{0,62}+"
    r"(?:(?:\.|[ ]?[(\[{][ ]?dot[ ]?[)\]}][ ]?)[A-Za-z0-9][\w-]{0,62}+){1,8})(?![\w@])", re.ASCII | re.IGNORECASE)
_FILES = frozenset([
    "png", "jpg", "jpeg", "jpe", "gif", "svg", "webp", "ico", "bmp", "tif", "tiff", "avif", "heic", "heif",
    "psd", "eps", "css", "scss", "less", "js", "jsx", "mjs", "ts", "tsx", "json", "html", "htm", "shtml",
    "xhtml", "xml", "php", "asp", "aspx", "jsp", "pdf", "doc", "docx", "xls", "xlsx", "ppt", "pptx", "txt",
    "csv", "mp3", "mp4", "m4a", "wav", "ogg", "webm", "avi", "gz", "tgz", "tar", "rar", "exe", "dll", "so",
    "jar", "class", "dmg", "iso", "ttf", "otf", "woff", "woff2", "map", "log", "bak", "tmp", "local",
    "localhost", "lan"
])
IPV4 = re.compile(
    r"(?<![\w.])(?P<value>(?:(?:25[0-5]|2[0-4]\d|1?\d?\d)\.){3}(?:25[0-5]|2[0-4]\d|1?\d?\d))(?!\w|\.\d)", re.ASCII)
IPV6 = re.compile(
    r"(?<![\w:.])(?P<value>(?:[0-9A-Fa-f]{0,4}:){2,8}(?:(?:\d{1,3}\.){3}\d{1,3}|[0-9A-Fa-f]{1,4})?)(?![\w:])", re.ASCII)
_VERSION = re.compile(r"""
    (?: (?<![A-Za-z]) (?: v | ver | versions? | release | build | update | upgrade | patch | firmware | driver | plugin
      | player | browser | chrome | firefox | opera | safari | edge | android | ios | windows | office | java | flash
      | sdk | assembly | package | library | revision | rev | section | chapter | clause | article | paragraph
      | appendix | figure | table | rule | item | step | oid | edition ) (?![A-Za-z])
      | § | 版本 | 更新 | 升级 | 固件 | 驱动 | 补丁 | 软件 | 客户端 | 插件 | 章 | 节 | 条 | 第 | 表
        | 图 ) [^<>\n]{0,24} $""",
                      re.VERBOSE | re.IGNORECASE)
_DIRECTLY = re.compile(r"(?:(?<![A-Za-z])(?:v|ver|versions?|release|build|section|oid)[.:= ]{0,3}|§[ ]?|"
                       r"版本(?:号)?[:：为是 ]{0,3}|"
                       r"第[ ]?|==|[A-Za-z]/|[A-Za-z0-9][-_])$", re.IGNORECASE)
_COMPUTER = re.compile(r"""
    (?: (?<![A-Za-z]) (?: ip | ipv4 | address(?:es)? | addr | hosts? | hostname | server | dns | gateway | ping | router
      | subnet | proxy | vpn | ssh | login | logged | visitor | client_?ip | nameserver | connect(?:ed|ion)? | from )
      (?![A-Za-z]) | 地址 | 服务器 | 主机 | 网关 | 路由 | 代理 | 登录 | 访问 | 来自 ) [^<>\n]{0,24} $""",
                       re.VERBOSE | re.IGNORECASE)
_PRODUCT = re.compile(r"(?:^|[ (（\"'])[a-z]*[A-Z][A-Za-z+#]*(?:[ ](?:\d{1,4}|[A-Z][A-Za-z]*))?[ ]$")
_RESOLVERS = frozenset(("8.8.8.8", "8.8.4.4", "1.1.1.1", "1.0.0.1", "9.9.9.9", "4.2.2.1", "4.2.2.2", "114.114.114.114",
                        "223.5.5.5", "223.6.6.6", "208.67.222.222", "208.67.220.220"))
_EXAMPLES = [ipaddress.ip_network(net) for net in ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24",
                                                   "2001:db8::/32")]


def email(match: re.Match[str]) -> int:
    """How many characters of the match are a mailbox: all of them, or 0."""
    local, domain = match["value"].rsplit("@", 1)
    if domain.rsplit(".", 1)[1].lower() in _FILES or re.match(r"\d+(?:\.\d+)?x\.|\d+\.\d+", domain):
        return 0
    if local in ("git", "hg", "svn") and match.string[match.end():match.end() + 1] in (":", "/"):
        return 0  # where a program's source is kept
    return len(match["value"])


def ipv4(match: re.Match[str]) -> int:
    """How many characters of the match are the address of somebody's computer: all of them, or 0."""
    value, text, start = match["value"], match.string, match.start("value")
    try:
        address = ipaddress.IPv4Address(value)
    except ValueError:
        return 0  # a leading zero
    if value in _RESOLVERS or not _names_somebody(address):
        return 0
    before = text[max(0, start - 40):start]
    if _DIRECTLY.search(before):
        return 0
    if before.endswith("//") or _COMPUTER.search(before) or re.compile(r":\d{2,5}|/\d\d?\b").match(
            text, match.end("value")):
        return len(value)
    parts = [int(part) for part in value.split(".")]
    small = parts[0] <= 30 and sum(part < 10 for part in parts) >= 2
    return 0 if small or _VERSION.search(before) or (parts[0] <= 30 and _PRODUCT.search(before)) else len(value)


def ipv6(match: re.Match[str]) -> int:
    """How many characters of the match are the address of somebody's computer: all of them, or 0."""
    groups = [group for group in match[0].split(":") if group]
    if len(groups) < 2 or not re.search(r"\d", match[0]) or len(match[0]) < 6:
        return 0  # a time of day, or a name in C++
    try:
        address = ipaddress.IPv6Address(match[0])
    except ValueError:
        return 0
    return len(match[0]) if _names_somebody(address.ipv4_mapped or address) else 0


def _names_somebody(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    """Public addresses, as datatrove's filter for FineWeb takes them, and those of examples, which stand for such."""
    return (address.is_global and not address.is_multicast) or any(
        address in net for net in _EXAMPLES if net.version == address.version)
