"""What exercises are about: topics, words and phrases of our own, in English and Chinese."""

from __future__ import annotations

import re

Words = dict[str, tuple[str, ...]]
"""Texts by language."""


def _listed(**texts: str) -> Words:
    """Texts that stand between bars, by language."""
    return {language: tuple(" ".join(one.split()) for one in text.split("|")) for language, text in texts.items()}


TOPICS = _listed(
    en="""a rainy market day|the first snow in a small town|how bread rises|a lost umbrella|learning to swim|
        the sound of an old clock|a garden on a roof|why leaves turn red|a letter to a neighbour|packing for a picnic|
        a cat that hates Mondays|the smell of coffee|crossing a river by ferry|a broken bicycle|stars above the desert|
        how to mend a sock|a quiet library|the last bus home|planting tomatoes|a lighthouse keeper|sharing a pizza|
        a kite in the wind|how soap works|moving to a new flat|the taste of lemons|a very slow turtle|writing a diary|
        a bridge made of wood|fishing at dawn|the colour blue|a noisy parrot|baking a birthday cake|walking in fog|
        why we sleep|a chess game|the oldest tree in the park|drawing a map|a train to the sea|cleaning the kitchen|
        a robot that waters plants|the moon and the tides|choosing a hat|a candle in the window|how bees find home|
        an empty theatre|saving water|a shoe shop|the road to the mountains|singing in the shower|a bowl of soup""",
    zh="""雨天的菜市场|小镇的第一场雪|怎样揉面|丢失的雨伞|学游泳|老钟的声音|屋顶上的花园|树叶为什么变红|写给邻居的信|准备野餐|
        讨厌星期一的猫|咖啡的香味|坐渡船过河|坏掉的自行车|沙漠上的星空|怎样补袜子|安静的图书馆|末班公交车|种西红柿|
        守灯塔的人|风筝|搬新家|柠檬的味道|慢吞吞的乌龟|写日记|木头桥|清晨钓鱼|蓝色|爱说话的鹦鹉|生日蛋糕|雾中散步|
        我们为什么睡觉|下象棋|公园里的老树|画地图|去海边的火车|打扫厨房|月亮和潮汐|窗前的蜡烛|一碗汤""")
"""What is written about."""

_LITTLE = re.compile("(?:a|an|the|that|with|from|into|how|why|we|to|of|in|on|by|for|and|very)\\Z|"
                     ".*[怎样为什么我们的在上写给坐去一]")


def content_of(topic: str) -> list[str]:
    """The words of a topic of which an answer about it has at least one; of a Chinese one, pairs of characters."""
    parts = topic.split() if topic.isascii() else [topic[place:place + 2] for place in range(len(topic) - 1)]
    return [part for part in parts if not _LITTLE.match(part)]


FORMS = {
    "en": ("Write a few lines about {topic}.", "Tell me about {topic}.", "Describe {topic} briefly.",
           "Say something short about {topic}.", "Write a short note on {topic}."),
    "zh": ("写几句关于{topic}的话。", "简单说说{topic}。", "请用几句话描写{topic}。", "写一小段话，题目是{topic}。")}
"""How it is asked for."""

KEYWORDS = _listed(
    en="""window|morning|river|friend|silver|gentle|basket|whisper|honest|paper|garden|winter|copper|journey|kitchen|
        shadow|music|ticket|button|lantern|orange|pocket|bright|number|island""",
    zh="窗户|早晨|朋友|温柔|篮子|诚实|花园|冬天|旅行|厨房|影子|音乐|车票|灯笼|橙子|口袋|明亮|岛屿|石头|笑声")
"""Words that a text is to have."""

COMMON = _listed(en="the|and|very|good|because|really|many|people|time|it|was|there",
                 zh="的|是|我们|很|因为|非常|可以|人们|时候|但是")
"""Words that a text is to do without: hard to avoid."""

ENDINGS = _listed(en="That is all for today.|Thank you for reading.|And so it ends.|What do you think?|See you "
                     "tomorrow.|Now it is your turn.",
                  zh="今天就说到这里。|谢谢你的阅读。|你觉得呢？|明天见。|现在轮到你了。")
"""Phrases that a text is to end with."""

LETTERED = _listed(en="""banana|kettle|mirror|blossom|coffee|pepper|balloon|cabbage|saddle|lemonade|committee|
    bookkeeper|tomorrow|umbrella|raspberry|attention|mississippi|hammock|parallel|accordion|necessary|dinosaur|cinnamon|
    chocolate|elephant|television|adventure|cucumber|alphabet|grasshopper|marmalade|xylophone|rhythm|volleyball|
    refrigerator|caterpillar|sunflower|watermelon|photograph|kangaroo""")["en"]
"""Words whose letters are counted."""

THINGS = _listed(
    en="""apples|keys|shirts|spoons|pencils|coins|plates|books|candles|stamps|onions|socks|bells|maps|cups|ropes|nails|
        boxes|lamps|chairs""",
    zh="苹果|钥匙|衬衫|勺子|铅笔|硬币|盘子|书|蜡烛|邮票|洋葱|袜子|铃铛|地图|杯子|绳子|钉子|盒子|台灯|椅子")
"""Things in lists that are counted."""
