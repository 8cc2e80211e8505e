"""Chinese sentences with invented private data whose places are known, and with what only looks like it.

``written()`` gives sentences written by hand, ``drawn(seed, count)`` ones that are put together at random: numbers with
right check digits, in the spellings that people use. In a sentence, ``«kind|value»`` marks private data.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from dataclasses import dataclass

MARK = re.compile(r"«(\w+)\|([^»]*)»")


@dataclass(frozen=True)
class Sentence:
    """A text, and where private data stands in it: (start, end, kind)."""

    text: str
    spans: tuple[tuple[int, int, str], ...]


def marked(sentence: str) -> Sentence:
    """Read a sentence with marks."""
    text, spans, done = "", [], 0
    for match in MARK.finditer(sentence):
        text += sentence[done : match.start()]
        spans.append((len(text), len(text) + len(match[2]), match[1]))
        text += match[2]
        done = match.end()
    return Sentence(text + sentence[done:], tuple(spans))


WRITTEN = """
请打 «phone|138 1234 5678» 找我，或者 «phone|139-8765-4321»。
有意者请加微信同号«phone|15912345678»，非诚勿扰
她把号码写在纸上：«phone|１８６０１２３４５６７»
我的新号是«phone|+86 177 0123 4567»，旧号«phone|0086-13501234567»不用了。
客服电话«phone|400-820-8820»转2，传真«phone|021-62345678»。
（«phone|010-82345678»，联系人：王女士）
总机«phone|(0755)26543210»，分机«phone|0755-26543210-801»
家里座机是«phone|（010）67891234»。
电话／传真：«phone|0571-88123456»/«phone|0571-88123457»
手机«phone|13912345678»/«phone|13712345678»
海外请拨«phone|86-21-61234567»
热线：«phone|4008123123»，«phone|800 810 8888»（座机）
如需报名请在周五前致电李老师«phone|187-6543-2109»
发短信到«phone|133 1234 5678»即可
拨打电话:«phone|0371-6555 1234»
小陈，«phone|15000001234»，周三下午到
失主身份证号码为«national_id|11010519491231002X»，请来认领。
身份证：«national_id|440524188001010014»
证件 «national_id|110105 19491231 002X» 已核对
护照号码：«national_id|E12345678»
持通行证«national_id|C12345678»入境
请汇到 «card|6222 0212 3456 7890 128»，户名张伟
银行卡号：«card|6228480402564890018»（农业银行）
卡号«card|6217 0001 2345 6789 123»别忘了
信用卡 «card|4111 1111 1111 1111» 已挂失
肇事车辆为«plate|京A·12345»，逃逸方向不明
车牌«plate|粤B12345»的车主请挪车
一辆«plate|沪AD12345»停在门口
«plate|苏E 6K7L8»和«plate|浙A88888»相撞
牌照号：«plate|川A·F1234»；大巴«plate|鄂A12345D»；教练车«plate|豫A1234学»
住址：«address|北京市海淀区中关村南大街5号院3号楼201室»。
家庭地址：«address|江苏省南京市鼓楼区汉口路22号»，邮编210093
收货地址: «address|广东省深圳市南山区科技园南区R2-B栋4层»
老人住在«address|上海市徐汇区漕溪北路18号602室»，一个人生活
户籍所在地：«address|河南省周口市沈丘县刘庄店镇李寨村»
通讯地址是«address|成都市武侯区人民南路四段27号2栋1单元»；
请把稿件寄到«email|tougao@example.cn»。
邮箱：«email|wang_xiaoming88@163.com»，QQ：«account|123456789»
邮箱«email|li.si@mail.example.com.cn»，或«email|８８６６@qq.com»
来信请寄 «email|zhaopin＠example.com»
加我QQ«account|78901234»聊
我的微信号：«account|zhang_san-99»
微信：«account|wxid_8k2j1m3n4p» 备注来意
WeChat ID: «account|liuyang1990»
服务器«ipv4|203.0.113.57»昨晚被攻击
来自«ipv4|36.112.8.77»的访问最多
手机销量2019-2023年持续增长，专家看好这一趋势。
手机价格在 1999-2999 元之间，电话手表 599 元。
热线 2020-2021 年度报告已经发布
电话普及率从1990年的1.1部/百人升到2000年的20.1部/百人
这部手机有 128 256 512 三种容量
软件版本 2.3.1.0 已发布，请从 2.2.9.7 升级。
驱动程序5.2.0.14修复了蓝屏
客户端 7.6.4.2 版今天推送
请把网关设为 192.168.1.1，掩码 255.255.255.0。
DNS 可填 114.114.114.114 或 223.5.5.5
第 1.2.3.4 节讲的是编译原理
书号 ISBN 978-7-111-40701-0，定价：59.00元
条形码 6901234567892 是国产商品
条码：6902083881405，净含量500毫升
订单号：2023101512345678，预计三天送达
订单号15012345678已发货
快递单号 773123456789012 在途
学号2019013812345，专业计算机
股票代码 600519 和 000858 涨停，300750 下跌
国内生产总值 13812345678 元
全年营业收入13800000000元，同比增长3.2%
人口普查得到 1411778724 人
北纬39.9042，东经116.4074
坐标 (116.397428, 39.90923) 在广场中心
电子电荷为 1.602176634e-19 库仑
圆周率是3.14159265358979，自然常数2.71828182845905
合同编号：2021-0315-0047，一式两份
2023-01-15 12:30:45 开始，2023.02.28 结束
时间戳 1700000000000 对应2023年11月
图标用 logo@2x.png，另备 icon@3x.webp
安装 lodash@4.17.21 和 vue@3.2.1
克隆 git@example.com:zu/xiangmu.git 即可
QQ群 123456789 欢迎加入
微信公众号：renminribao 发布了消息
微信支付 2023 年报；微信 8.0.37 版
地址：见下文；下载地址：https://example.com/a/b
IP地址和邮箱地址都不能为空
内存地址 0x7ffe12345678 越界
他住在北京市，去年搬到上海
京A股指数上涨，沪指3000点
新C919客机首飞，苏30战机护航
比分 100-98，胜率 0.4111111111111111
航班 CA1234 与列车 G1234 次都晚点
批准文号：国药准字Z20025001
专利号 201310123456.7 已授权
邮编 100871，区号 010
充值 100 元送 20 元，满 400 减 50
火警119，匪警110，急救120，市长热线12345
电压 220-240 V，频率 50-60 Hz
房价 40000-50000 元每平方米
编号 400 123 0001 的零件缺货
系列号 SN2019123456789
车次 K1234，2019 年 12345 辆
"""


def written() -> list[Sentence]:
    """The sentences that were written by hand."""
    return [marked(line) for line in WRITTEN.strip().splitlines()]


Maker = Callable[[random.Random], str]


def _digits(rng: random.Random, count: int) -> str:
    return "".join(rng.choice("0123456789") for _ in range(count))


def _with_luhn(body: str) -> str:
    """The body and the digit that makes it right (ISO/IEC 7812-1), by trying them all."""

    def total(number: str) -> int:
        return sum(sum(divmod(int(d) * (1 + k % 2), 10)) for k, d in enumerate(reversed(number)))

    return next(body + check for check in "0123456789" if total(body + check) % 10 == 0)


def _mobile(rng: random.Random) -> str:
    a, b, c = f"1{rng.randint(3, 9)}{rng.randint(0, 9)}", _digits(rng, 4), _digits(rng, 4)
    number = rng.choice(
        (
            f"{a}{b}{c}",
            f"{a}{b}{c}",
            f"{a} {b} {c}",
            f"{a}-{b}-{c}",
            f"{a}-{b}{c}",
            f"{a} {b}{c}",
            f"{a}{b[0]}-{b[1:]}-{c}",
            f"{a}.{b}.{c}",
            f"{a} {b}-{c}",
        )
    )
    before = rng.choice(("",) * 8 + ("+86", "+86 ", "+86-", "86-", "0086", "0086-", "(+86)", "86 ", "（86）"))
    full = (before + number).translate({48 + d: 0xFF10 + d for d in range(10)}) if rng.random() < 0.08 else ""
    return full or before + number


def _landline(rng: random.Random) -> str:
    area = rng.choice(("010", "021", "020", "0755", "0571", "0371", "0451", "0991"))
    number = rng.choice("2345678") + _digits(rng, 7 if area != "0991" else 6)
    number = rng.choice((number, number, f"{number[:4]} {number[4:]}", f"{number[:4]}-{number[4:]}"))
    return rng.choice(
        (
            f"{area}-{number}",
            f"{area}-{number}",
            f"({area}){number}",
            f"（{area}）{number}",
            f"{area} {number}",
            f"+86-{area[1:]}-{number}",
            f"({area}) {number}",
        )
    )


def _service(rng: random.Random) -> str:
    head, a, b = rng.choice(("400", "400", "800")), _digits(rng, 3), _digits(rng, 4)
    return rng.choice((f"{head}-{a}-{b}", f"{head} {a} {b}", f"{head}{a[0]}-{a[1:]}{b[0]}-{b[1:]}", f"{head}-{b}-{a}"))


def _phone(rng: random.Random) -> str:
    return rng.choice((_mobile, _mobile, _mobile, _landline, _landline, _service))(rng)


def _identity(rng: random.Random) -> str:
    body = (
        f"{rng.choice(('110105', '310101', '440305', '510107', '330106', '420106', '610113', '230103'))}"
        f"{rng.randint(1940, 2015)}{rng.randint(1, 12):02}{rng.randint(1, 28):02}{_digits(rng, 3)}"
    )
    check = "10X98765432"[sum(int(d) * 2 ** (17 - k) for k, d in enumerate(body)) % 11]
    value = body + (check.lower() if rng.random() < 0.2 else check)
    return rng.choice(
        (value,) * 6 + (f"{value[:6]} {value[6:14]} {value[14:]}", f"{value[:6]}-{value[6:14]}-{value[14:]}")
    )


def _card(rng: random.Random) -> str:
    head, size = rng.choice(
        (
            ("622202", 19),
            ("621700", 19),
            ("622848", 19),
            ("625965", 16),
            ("622588", 16),
            ("621226", 19),
            ("436742", 19),
            ("518710", 16),
            ("356885", 16),
            ("623058", 19),
        )
    )
    value = _with_luhn(head + _digits(rng, size - len(head) - 1))
    mark = rng.choice(("", "", " ", "-"))
    return mark.join(value[k : k + 4] for k in range(0, size, 4))


def _plate(rng: random.Random) -> str:
    letters = "ABCDEFGHJKLMNPQRSTUVWXYZ"
    head = rng.choice("京津沪渝冀豫云辽黑湘皖鲁新苏浙赣鄂桂甘晋蒙陕吉闽贵粤青藏川宁琼") + rng.choice("ABCDEFGHJK")
    tail = list(_digits(rng, 5))
    for place in rng.sample(range(5), rng.randint(0, 2)):
        tail[place] = rng.choice(letters)
    ordinary = "".join(tail)
    new = rng.choice(
        (rng.choice("DF") + rng.choice(letters + "0123456789") + _digits(rng, 4), _digits(rng, 5) + rng.choice("DF"))
    )
    return head + rng.choice(("", "", "·", " ", "-", "•")) + rng.choice((ordinary, ordinary, new))


def _home(rng: random.Random) -> str:
    area = rng.choice(
        (
            "北京市朝阳区",
            "上海市浦东新区",
            "广东省广州市天河区",
            "浙江省杭州市西湖区",
            "四川省成都市锦江区",
            "湖北省武汉市洪山区",
            "陕西省西安市雁塔区",
            "山东省青岛市市南区",
            "黑龙江省哈尔滨市南岗区",
        )
    )
    road = rng.choice(
        ("建国路", "人民大道", "中山北路", "文三路", "解放大街", "珞喻路", "长安南路", "幸福里小区", "和平胡同")
    )
    rest = rng.choice(
        (
            "{a}号",
            "{a}号{b}栋{c}室",
            "{a}号院{b}号楼{c}",
            "{a}弄{b}号{c}室",
            "{a}号{b}单元{c}室",
            "{a}号{b}栋{b}单元{c}",
        )
    )
    return area + road + rest.format(a=rng.randint(1, 900), b=rng.randint(1, 20), c=rng.randint(101, 2604))


def _email(rng: random.Random) -> str:
    user = rng.choice(("zhang.wei", "lina", "wang_fang", "chen-jie", "liu", "zhao"))
    return f"{user}{rng.choice(('', str(rng.randint(1, 9999))))}@" + rng.choice(
        ("qq.com", "163.com", "126.com", "sina.com.cn", "example.cn", "pku.edu.cn")
    )


def _qq(rng: random.Random) -> str:
    return rng.choice("123456789") + _digits(rng, rng.randint(5, 9))


def _wechat(rng: random.Random) -> str:
    return rng.choice(
        (
            "wxid_" + _digits(rng, 3) + "k" + _digits(rng, 8),
            "xiaoming" + _digits(rng, 3),
            "lily_" + _digits(rng, 4),
            "A" + _digits(rng, 7),
        )
    )


FORMS: list[tuple[str, Maker, tuple[str, ...]]] = [
    (
        "phone",
        _phone,
        (
            "电话：{}。",
            "请打 {} 找我",
            "{} 张先生",
            "有事联系{}，谢谢",
            "手机{}，随时可打",
            "他的号码是 {}。",
            "Tel：{}",
            "咨询请拨 {} ",
            "我叫李雷，{}，请回电",
            "（{}）",
            "订票热线{}",
            "传真:{}",
            "微信同号{}",
            "{}",
            "联系人：王芳 {}",
        ),
    ),
    (
        "national_id",
        _identity,
        ("身份证号{}。", "身份证：{}，", "证件号码 {} 已登记", "公民身份号码：{}", "{} 李明", "身份证号码是{}"),
    ),
    (
        "card",
        _card,
        ("银行卡{}", "卡号：{}，", "请打款到 {} 张三", "信用卡 {} 丢了", "工商银行 {}", "账户{}，户名李四", "{}"),
    ),
    ("plate", _plate, ("车牌{}。", "一辆{}撞了护栏", "牌照：{}", "{}的车主请挪车", "车号 {} 违停", "{}")),
    (
        "address",
        _home,
        (
            "住址：{}。",
            "家住{}，",
            "收货地址：{}",
            "家庭地址: {}；",
            "现住{}。",
            "通讯地址：{}\n",
            "地址：{}，",
            "住在{}。",
        ),
    ),
    ("email", _email, ("邮箱：{}。", "邮箱{}，", "请发到{}即可", "Email: {}", "（{}）", "{}")),
    ("account", _qq, ("QQ：{}", "QQ:{}，", "加我QQ {} ", "QQ号{}。", "QQ号码：{}", "qq：{}")),
    (
        "account",
        _wechat,
        ("微信号：{}", "微信：{}，", "微信号{}。", "WeChat: {}", "微信ID：{}", "vx：{}", "加微信: {} 备注姓名"),
    ),
]


def _traps(rng: random.Random) -> list[str]:
    year, small = rng.randint(1900, 2030), rng.randint(2, 30)
    ean = "69" + _digits(rng, 10)
    ean += str(-sum(int(d) * (1 + 2 * (k % 2)) for k, d in enumerate(ean)) % 10)
    isbn = "9787" + _digits(rng, 8)
    isbn += str(-sum(int(d) * (1 + 2 * (k % 2)) for k, d in enumerate(isbn)) % 10)
    a, b = rng.randint(10, 90) * 100, rng.randint(91, 200) * 100
    return [
        f"手机销量{year}-{year + small}年上涨",
        f"{year}—{year + small}年手机出货量",
        f"电话业务 {year}-{year + small} 年统计",
        f"手机价格{a}-{b}元",
        f"热线开通于{year}年",
        f"软件版本{small}.{rng.randint(0, 9)}.{rng.randint(0, 9)}.{rng.randint(0, 200)}",
        f"版本号：{rng.randint(1, 99)}.{rng.randint(0, 99)}.{rng.randint(0, 99)}.{rng.randint(0, 99)}",
        f"固件 {rng.randint(1, 20)}.{rng.randint(0, 9)}.{rng.randint(0, 9)}.{rng.randint(0, 99)} 发布",
        f"条形码{ean}",
        f"商品 {ean} 缺货",
        f"{ean}",
        f"ISBN {isbn}",
        f"书号：978-7-{isbn[4:7]}-{isbn[7:12]}-{isbn[12]}",
        f"售价 {rng.randint(1, 9999)}.{_digits(rng, 2)} 元",
        f"共 1{rng.randint(3, 9)}{_digits(rng, 9)} 元",
        f"营收1{rng.randint(3, 9)}{_digits(rng, 9)}元",
        f"订单号：{year}{rng.randint(1, 12):02}{rng.randint(1, 28):02}{_digits(rng, 8)}",
        f"订单号 6{_digits(rng, 15)}",
        f"运单号：{_digits(rng, 12)}",
        f"股票代码 {rng.choice(('600', '000', '300'))}{_digits(rng, 3)}",
        f"东经{rng.randint(73, 135)}.{_digits(rng, 6)}，北纬{rng.randint(18, 53)}.{_digits(rng, 6)}",
        f"坐标：{rng.randint(73, 135)}.{_digits(rng, 7)}, {rng.randint(18, 53)}.{_digits(rng, 7)}",
        f"{year}-{rng.randint(1, 12):02}-{rng.randint(1, 28):02} {rng.randint(0, 23):02}:{small:02}:00 开会",
        f"{year}.{rng.randint(1, 12):02}.{rng.randint(1, 28):02}-{year}.12.31",
        f"常数为{rng.randint(1, 9)}.{_digits(rng, 9)}e-{small}",
        f"+{rng.randint(1, 9)}.{_digits(rng, 9)}",
        f"0.{_digits(rng, 16)}",
        f"背景 bg{small}@2x.png",
        f"图片 a_{small}@3x.jpg",
        f"网关 192.168.{rng.randint(0, 255)}.{rng.randint(1, 254)}",
        f"内网 10.{rng.randint(0, 255)}.{rng.randint(0, 255)}.7",
        f"掩码 255.255.{rng.choice((0, 128, 240, 255))}.0",
        f"邮编{_digits(rng, 6)}",
        f"学号{year}{_digits(rng, 8)}",
        f"时间戳 1{_digits(rng, 12)}",
        f"QQ群：{_digits(rng, 9)}",
        f"合同编号 {year}-{_digits(rng, 4)}-{_digits(rng, 4)}",
        f"人口 {rng.randint(1, 99)} {_digits(rng, 3)} {_digits(rng, 3)} 人",
        f"型号 {rng.choice('ABCX')}{_digits(rng, 8)}",
        f"共{rng.randint(100, 999)},{_digits(rng, 3)},{_digits(rng, 3)}元",
        f"比分 {small}-{small + 3}，历时{small}分钟",
        f"新{rng.choice('ABC')}{rng.randint(100, 999)}型客机",
        f"地址：{rng.choice(('见附件', '同上', 'https://example.cn', '待定'))}",
        f"住在{rng.choice(('北京', '上海市', '成都', '乡下'))}，{small}年了",
        f"微信 {small}.0.{small} 版",
        f"第{small}.{small}.1.2节",
    ]


def with_names(seed: int, count: int) -> list[Sentence]:
    """Sentences with people's names, which only learned models find."""
    rng = random.Random(seed)
    families = (
        "王李张刘陈杨黄赵吴周徐孙马朱胡郭何高林罗郑梁谢宋唐许韩冯邓曹彭曾肖田董潘袁蔡蒋余"
        "于杜叶程魏苏吕丁沈任姚卢傅钟姜崔谭廖范汪陆金石戴贾韦夏邱"
    )
    given = (
        "伟芳娜敏静丽强磊军洋勇艳杰娟涛明超兰霞平刚桂英华建国文辉力波宁雪梅玉萍红鹏飞晨阳"
        "子涵欣怡雨轩浩然思琪佳慧海燕志远"
    )
    forms = (
        "我叫{}。",
        "联系人：{}，请回电",
        "{}昨天去了上海",
        "这本书是{}写的",
        "请{}和大家一起开会",
        "{}老师讲课很有意思",
        "昨天{}给我打了电话",
        "优秀员工：{}",
        "{}先生，您好",
        "由{}主持会议",
    )
    return [
        marked(
            rng.choice(forms).format(
                f"«name|{rng.choice(families)}{''.join(rng.sample(given, rng.choice((1, 2, 2))))}»"
            )
        )
        for _ in range(count)
    ]


def drawn(seed: int, count: int) -> list[Sentence]:
    """``count`` sentences of each form and twice as many traps in each kind of them, and some texts of several
    sentences."""
    rng = random.Random(seed)
    made = []
    for kind, maker, forms in FORMS:
        made += [rng.choice(forms).format(f"«{kind}|{maker(rng)}»") for _ in range(count)]
    for _ in range(max(1, count // 15)):
        made += _traps(rng)
    made += ["。".join(rng.sample(made, 4)) + "。" for _ in range(count)]
    return [marked(sentence) for sentence in made]
