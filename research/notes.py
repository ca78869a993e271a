# ruff: noqa: RUF001  Chinese texts are data
"""Short notes as people have an assistant keep them, in English and Chinese.

What a question is looked for among: the same for the same seed, and about other
things than `paraphrases.json` asks for.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import Final

from benchmarks import texts

_SLOTS: Final[Mapping[str, tuple[str, ...]]] = {
    "tool": (
        "Figma",
        "Grafana",
        "Ansible",
        "Blender",
        "Excel",
        "Terraform",
        "Notion",
        "Redis",
        "Kafka",
        "Photoshop",
        "Obsidian",
        "Tableau",
        "Nginx",
        "Zotero",
        "Audacity",
        "QGIS",
    ),
    "craft": (
        "pottery",
        "beekeeping",
        "calligraphy",
        "chess",
        "fencing",
        "knitting",
        "sailing",
        "rowing",
        "origami",
        "archery",
        "woodcarving",
        "salsa",
        "judo",
        "astronomy",
    ),
    "food": (
        "lentil soup",
        "mango chutney",
        "rye bread",
        "miso",
        "pistachio ice cream",
        "stuffed peppers",
        "onion tart",
        "blueberry pancakes",
        "goat cheese",
        "dumplings",
    ),
    "city": (
        "Lisbon",
        "Kyoto",
        "Oslo",
        "Tbilisi",
        "Quito",
        "Gdansk",
        "Montreal",
        "Hanoi",
        "Porto",
        "Leeds",
        "Zagreb",
        "Nairobi",
        "Seville",
        "Perth",
        "Dakar",
        "Ghent",
    ),
    "thing": (
        "camera",
        "sofa",
        "wristwatch",
        "lawnmower",
        "projector",
        "rucksack",
        "kettle",
        "mattress",
        "telescope",
        "microphone",
        "raincoat",
        "desk lamp",
        "freezer",
        "kayak",
    ),
    "team": (
        "analytics",
        "marketing",
        "search",
        "billing",
        "legal",
        "hardware",
        "translation",
        "security",
        "onboarding",
        "research",
        "warehouse",
        "events",
    ),
    "month": ("January", "February", "March", "May", "June", "July", "August", "December"),
    "service": (
        "login",
        "report",
        "image",
        "geocoding",
        "export",
        "ranking",
        "chat",
        "tax",
        "shipping",
        "audit",
        "recommendation",
        "calendar",
    ),
}

_NOTES: Final = (
    "{name} from the {team} team is on parental leave until {month}.",
    "The {service} service answers within {n} milliseconds since it uses {tool}.",
    "User tried {craft} in {city} and found it rather dull.",
    "The {thing} from {name} has a warranty of {n} months.",
    "{name} brings {food} to the summer party of the {team} department.",
    "Ordered a {thing} in {city}; delivery takes {n} days.",
    "The {team} workshop in {city} was attended by {n} people.",
    "User asked how to export tables from {tool} to {tool2}.",
    "{name} teaches {craft} to beginners and charges {n} euros for a course.",
    "The recipe for {food} by {name} needs {n} grams of butter.",
    "Version {n} of the {service} service breaks the import from {tool}.",
    "{name} sold the {thing} to a collector from {city}.",
    "The {tool} licence of the {team} team costs {n} dollars a seat.",
    "User visited {name} in {city} in {month} and stayed {n} nights.",
    "The {thing} in the meeting room {name} is broken again.",
    "A {craft} festival takes place in {city} in {month}.",
    "User's notes about {tool} are in the folder {name}-{n}.",
    "{name} thinks that {city} is overrated, except for the {food}.",
    "Ticket {n} of the {service} service was closed as a duplicate.",
    "The photos of {city} are sorted by {month} and by camera.",
    "{name} compared {n} models before buying the {thing}.",
    "The {team} team counts visits with {tool}, not with {tool2}.",
    "User once spilled {food} over the {thing} of {name}.",
    "{city} has {n} museums about {craft}, says {name}.",
)

_CHINESE_SLOTS: Final[Mapping[str, tuple[str, ...]]] = {
    "surname": tuple("赵钱孙周吴郑冯陈褚卫蒋沈韩杨朱秦尤许何吕施孔曹严魏陶姜谢邹喻苏潘葛范彭郎"),
    "given": (
        "思远",
        "雨桐",
        "建国",
        "晓明",
        "佳怡",
        "浩然",
        "梦琪",
        "志强",
        "文静",
        "子涵",
        "海波",
        "春燕",
    ),
    "tool": (
        "飞书",
        "语雀",
        "石墨",
        "Figma",
        "Grafana",
        "Excel",
        "剪映",
        "企业微信",
        "Redis",
        "Kafka",
    ),
    "craft": (
        "书法",
        "围棋",
        "陶艺",
        "射箭",
        "太极",
        "剪纸",
        "摄影",
        "击剑",
        "国画",
        "皮划艇",
        "攀岩",
    ),
    "food": (
        "酸菜鱼",
        "小笼包",
        "凉皮",
        "红烧肉",
        "麻婆豆腐",
        "绿豆糕",
        "烧卖",
        "卤味",
        "月饼",
        "豆花",
    ),
    "city": (
        "昆明",
        "青岛",
        "西安",
        "厦门",
        "兰州",
        "哈尔滨",
        "贵阳",
        "南宁",
        "洛阳",
        "泉州",
        "大理",
    ),
    "thing": (
        "相机",
        "手表",
        "投影仪",
        "背包",
        "电饭煲",
        "床垫",
        "望远镜",
        "麦克风",
        "雨衣",
        "台灯",
        "冰柜",
    ),
    "team": ("数据", "市场", "搜索", "财务", "法务", "硬件", "翻译", "安全", "运营", "仓储"),
    "month": ("一月", "二月", "四月", "六月", "七月", "八月", "腊月"),
    "service": ("登录", "报表", "导出", "排序", "物流", "审计", "推荐", "日历", "地图", "结算"),
}

_CHINESE_NOTES: Final = (
    "{team}组的{name}休产假休到{month}。",
    "{service}服务用上{tool}以后，响应时间降到{n}毫秒。",
    "用户在{city}体验过{craft}，觉得没什么意思。",
    "{name}送的{thing}保修{n}个月。",
    "{team}部的年会上，{name}带来了{food}。",
    "在{city}订了一台{thing}，要等{n}天。",
    "{city}的{team}培训来了{n}个人。",
    "用户问过怎么把{tool}的表格导出来。",
    "{name}开了{craft}班，一期收费{n}元。",
    "{name}做{food}要放{n}克糖。",
    "{service}服务第{n}版不兼容{tool}。",
    "{name}把{thing}卖给了{city}的一位收藏家。",
    "{team}组的{tool}账号一年{n}块。",
    "{month}去{city}看望{name}，待了{n}天。",
    "{name}会议室的{thing}又坏了。",
    "{month}在{city}有{craft}节。",
    "关于{tool}的笔记在{n}号文件夹里。",
    "{name}觉得{city}除了{food}都一般。",
    "{service}服务的{n}号工单因为重复已关闭。",
    "{city}的照片按月份整理过了。",
    "{name}比较了{n}款才买下那个{thing}。",
    "用户曾经把{food}洒在{name}的{thing}上。",
    "{name}说{city}有{n}家跟{craft}有关的博物馆。",
)


def english(rng: random.Random) -> str:
    """Return a note of one sentence, or half of the time a longer text of `texts`."""
    if rng.random() < 0.5:
        return texts.memory(rng)
    tool, other = rng.sample(_SLOTS["tool"], 2)
    drawn = {name: rng.choice(words) for name, words in _SLOTS.items()}
    more = {"tool": tool, "tool2": other, "name": texts.name(rng), "n": rng.randint(2, 900)}
    return rng.choice(_NOTES).format(**{**drawn, **more})


def chinese(rng: random.Random) -> str:
    """Return a note of one sentence."""
    drawn = {name: rng.choice(words) for name, words in _CHINESE_SLOTS.items()}
    name = drawn["surname"] + drawn["given"]
    return rng.choice(_CHINESE_NOTES).format(**drawn, name=name, n=rng.randint(2, 900))


NOTES: Final[Mapping[str, Callable[[random.Random], str]]] = {
    "english": english,
    "chinese": chinese,
}
"""What makes a note, by language."""
