"""The report's words, in English and Chinese. Both stand in the page; the switch shows one.

What a single kind of stage is called, and its own figures, stand in the stage's class.
"""

from __future__ import annotations

from typing import Literal

from markupsafe import Markup, escape

Pair = tuple[str, str]
"""The same words in English and Chinese."""

Mood = Literal["good", "bad", "note"]

SCHOOLS = {"read": ("It reads alone", "独自阅读"), "teach": ("It follows a teacher", "跟随老师"),
           "judge": ("It is judged by people", "接受评判"), "exam": ("It is examined", "接受考试")}

FIGURES: dict[str, Pair] = {
    # learning
    "loss": ("loss (nats)", "损失（奈特）"),
    "validation_loss": ("held-out loss (nats)", "留出损失（奈特）"),
    "accuracy": ("accuracy", "正确率"),
    "gradient_norm": ("gradient norm", "梯度范数"),
    "parameters": ("parameters", "参数量"),
    "trained_parameters": ("parameters trained", "训练的参数量"),
    "steps": ("updates", "更新步数"),
    "seconds": ("seconds", "秒"),
    "tokens": ("tokens", "词元数"),
    "tokens_per_second": ("tokens a second", "每秒词元数"),
    "learned_tokens": ("tokens learned from", "参与学习的词元"),
    "cut": ("rows cut to length", "截短的行"),
    "left_out": ("rows left out", "略去的行"),
    "bits_per_byte": ("bits per byte, held-out text", "每字节比特数（留出文本）"),
    "chance_loss": ("… of a blind guess", "……随机猜测"),
    # rows
    "documents": ("documents", "文档数"),
    "kept": ("kept", "保留"),
    "rejected": ("rejected", "剔除"),
    "precision": ("precision", "精确率"),
    "recall": ("recall", "召回率"),
    "demonstrations": ("demonstrations", "示范条数"),
    "rankings": ("rankings", "排序条数"),
    "prompts": ("prompts", "提示数"),
    "responses": ("responses", "回答数"),
    "train": ("rows to learn from", "训练行数"),
    "heldout": ("rows held out", "留出行数"),
    "agreement": ("annotators agree", "标注者一致率"),
    # preferences and reinforcement
    "preference_accuracy": ("held-out pairs ordered right", "留出偏好对正确率"),
    "score": ("reward model's score", "奖励模型分数"),
    "gold": ("the hidden rubric's points", "隐藏评分标准的得分"),
    "watched_score": ("what it is rewarded for", "所优化的奖励"),
    "watched_gold": ("points by a judge that is not learned from", "旁观裁判评分"),
    "kl": ("KL to the start (nats)", "与起点的 KL（奈特）"),
    "entropy": ("entropy (nats a token)", "熵（奈特/词元）"),
    "length": ("tokens an answer", "回答长度（词元）"),
    "finished": ("answers that end", "正常结束的回答比例"),
    "clip_fraction": ("tokens clipped", "被截断的词元"),
    "episodes": ("episodes", "回合数"),
    # what an examination says of other stages
    "right_answers": ("right answers", "答对率"),
    "base_right_answers": ("… of the base model, prompted", "……基座模型（少样本提示）"),
    "untrained_right_answers": ("… without pretraining", "……未经预训练"),
    "win_rate_vs_sft": ("wins against SFT", "对 SFT 的胜率"),
    "length_controlled_win_rate_vs_sft": ("wins against SFT, length held equal", "对 SFT 的胜率（控制长度）"),
    "right_difference_vs_sft": ("right answers, minus SFT's", "答对率与 SFT 之差"),
    "mean_length": ("tokens an answer", "回答长度（词元）"),
    "mean_points": ("points by the judge", "裁判平均分"),
    "made_up": ("made up", "编造"),
    "verbatim": ("word for word", "逐字复现"),
    "broken_words": ("answers with a word that exists nowhere", "含不存在词语的回答"),
}
"""What is measured in several kinds of stages."""

MEASURED: dict[str, Pair] = {
    "answer_loss": ("loss of the right answers, nats a token", "正确答案的损失（奈特/词元）"),
    "answer_bits_per_byte": ("bits per byte of the right answers", "正确答案每字节比特数"),
    "broken_words": ("sampled answers with a word that exists nowhere", "含不存在词语的采样回答"),
    "exact": ("exactly the reference", "与参考答案一致"), "contains": ("the reference stands in it", "包含参考答案"),
    "choice": ("right choices", "选对率"), "number": ("right numbers", "数值正确"),
    "rouge_1": ("ROUGE-1", "ROUGE-1"), "rouge_2": ("ROUGE-2", "ROUGE-2"), "rouge_l": ("ROUGE-L", "ROUGE-L"),
    "bleu": ("BLEU", "BLEU"), "chrf": ("chrF", "chrF")
}
"""What an examination measures on held-out rows; checkers by the names that they have in Trivium."""


def measured_words(key: str) -> Pair:
    """What is measured on held-out rows, in both languages; a checker under a name of the user's own keeps it."""
    return MEASURED.get(key) or (key.replace("_", " "), key.replace("_", " "))


TASK_FIGURES: dict[str, Pair] = {
    "accuracy": ("right choices", "选对率"),
    "accuracy_per_character": ("right choices, by log-probability a character", "选对率（按每字符对数概率）"),
    "accuracy_per_byte": ("right choices, by log-probability a byte", "选对率（按每字节对数概率）"),
    "probability_of_right": ("probability of what is right", "正确选项的概率"),
    "right": ("right answers", "答对率"),
    "answered": ("answers in which one could be found", "能读出答案的回答"),
    "prompt_strict": ("prompts all of whose instructions are followed", "全部指令都遵守的提示"),
    "instruction_strict": ("instructions followed", "遵守的指令"),
    "prompt_loose": ("prompts all of whose instructions are followed, loosely judged", "全部指令都遵守的提示（宽松）"),
    "instruction_loose": ("instructions followed, loosely judged", "遵守的指令（宽松）"),
    "bits_per_byte": ("bits per byte", "每字节比特数"),
    "answer_loss": MEASURED["answer_loss"], "answer_bits_per_byte": MEASURED["answer_bits_per_byte"],
    "refused_harmful": ("harmful requests declined", "拒绝有害请求"),
    "refused_harmless": ("harmless requests declined", "误拒无害请求"),
    "made_up": ("made up, of what does not exist", "对不存在之物的编造"),
    "made_up_with_a_value": ("made up with a value of the world", "编造出世界中的值"),
    "admitted_existing": ("said not to know, of what exists", "对存在之物说不知道"),
    "verbatim": ("documents continued word for word", "逐字续写的文档"),
    "overlap": ("tokens before the first difference", "首处差异之前的词元"),
    "placeholders_hold": ("placeholders that hold", "占位符保持"),
    "leaked": ("private data where a placeholder was", "占位符处的隐私数据"),
    "win_rate": ("wins against the baseline", "对基线的胜率"),
    "length_controlled": ("wins, length held equal", "胜率（控制长度）"),
}
"""What ``trivium evaluate`` measures, in the order in which it is shown."""

PARTS: dict[str, Pair] = {
    "better is shorter": ("better is shorter", "较好者更短"), "alike": ("about as long", "长度相近"),
    "better is longer": ("better is longer", "较好者更长"), "0 or less": ("no point or less", "0 分及以下"),
    "1": ("1 point", "1 分"), "2": ("2 points", "2 分"), "3 or more": ("3 points or more", "3 分及以上")
}
"""What a reward model's accuracy is split by: lengths, and how far apart people rated the two responses."""

PRECISIONS: dict[str, Pair] = {
    "bf16": ("bfloat16", "bfloat16"), "bf16-weights": ("bfloat16, weights too", "bfloat16（含权重）")
}
"""The number formats that a model is trained in; others are called by their name."""

TASKS = {
    "classification": "情感分类", "code": "小程序", "dialogue": "对话", "entity": "实体问答", "judgement": "同义判断",
    "reasoning": "分步算术", "refusal": "拒绝有害请求"
}
"""The families of the embedded world, in Chinese."""

STEPS = {
    "input": "输入", "read": "读取", "extract": "正文提取", "repetition": "重复过滤", "quality": "质量过滤",
    "c4": "C4 规则", "fineweb": "FineWeb 规则", "harmful": "有害内容", "exact_duplicates": "精确去重",
    "near_duplicates": "近似去重", "private": "隐私替换", "contamination": "去污染", "language": "语言",
    "address": "网址", "classifier": "质量分类器", "spans": "重复段落", "mixture": "配比", "output": "输出",
    "boilerplate": "网页样板", "contaminated": "评测题泄漏", "exact_duplicate": "精确重复",
    "near_duplicate": "近似重复", "spam": "垃圾页"
}
"""Cleaning's steps and kinds of dirt, in Chinese."""

WORDS: dict[str, Pair] = {
    # axes and lines of the drawings
    "step": ("step", "步"),
    "training": ("training", "训练"),
    "held_out": ("held out", "留出"),
    "kept": ("kept", "保留"),
    "measured": ("measured", "实测"),
    "perfect": ("perfect", "理想"),
    "gain": ("gain, in deviations of the first look's answers", "增益（以首次观察的标准差为单位）"),
    "predicted": ("chance the model gives", "模型给出的概率"),
    "preferred": ("share that was preferred", "实际被偏好的比例"),
    # titles of the drawings
    "losses": ("training and held-out loss", "训练损失与留出损失"),
    "calibration": ("Calibration", "校准"),
    "drift_of_score": ("What the reward model says, by drift", "奖励模型分数随漂移的变化"),
    "drift_of_watched_gold": ("What a judge says that it does not learn from, by drift", "旁观裁判的评分随漂移的变化"),
    "drift_of_both": ("{stage}: what it is rewarded for, and what a judge says that it does not learn from",
                      "{stage}：所优化的奖励与旁观裁判的评分"),
    "drift_of_mean_points": ("What the judge says, by drift", "裁判评分随漂移的变化"),
    "drift_of_right_answers": ("Right answers, by drift", "答对率随漂移的变化"),
    "lineage": ("What was made from what", "产物来源图"),
    # the curriculum
    "tokens": ("tokens", "词元"),
    "number_format": ("number format", "数值格式"),
    # what cleaning counted
    "extraction": ("how main texts were found", "正文由谁提取"),
    "private": ("private data replaced", "替换的隐私信息"),
    "spans": ("repeated passages", "重复段落"),
    "contamination": ("evaluation texts", "评测题"),
    "texts": ("searched for", "搜索"),
    "texts_hit": ("found", "命中"),
    "texts_rejected": ("documents rejected", "剔除的文档"),
    "epochs": ("how often each source is read", "各来源读取遍数"),
    "bytes_per_token": ("bytes a token of this tokenizer", "每词元字节数"),
    # rehearsal
    "rehearsal_none": ("without", "无复习"),
    "rehearsal_generated": ("{share} made up by the model", "{share} 由模型自拟"),
    "rehearsal_rows": ("{share} earlier rows", "{share} 旧数据"),
    # clauses of the findings
    "paired": ("; the same prompts, paired: {low} to {high}", "；同题配对区间 {low} 至 {high}"),
    "lost_most": ("; it lost most, in points, in {tasks}", "；下降最多：{tasks}"),
    "lost_task": ("{task} ({points})", "{task}（{points}）"),
    "comma": (", ", "、"),
}
"""Words and clauses; what stands in braces is filled in."""

LIKED_BUT = ("{stage} is preferred to {base} in {win} of comparisons, yet its answers are right {points} points {less} "
             "often ({right} against {before}{paired}){lost}.",
             "{stage} 在 {win} 的比较中胜过 {base}，但答对率{less} {points} 个百分点"
             "（{right} 对 {before}{paired}）{lost}。")
REWARD_GAP = ("The reward model orders pairs {gap} points less often as the annotators did than a judge without noise "
              "would; what it does not see, optimisation cannot respect.",
              "奖励模型与标注者的一致率比无噪声裁判低 {gap} 个百分点；它看不到的，优化也顾不到。")
FORGOT = ("{stage} ({way}) forgot: right answers to the earlier task {task} fell from {before} to {after}.",
          "{stage}（{way}）发生遗忘：旧任务 {task} 的答对率由 {before} 降至 {after}。")

FINDINGS: dict[str, tuple[Mood, str, str]] = {
    "liked_but_less_right": ("bad", LIKED_BUT[0].replace("{less}", "less"), LIKED_BUT[1].replace("{less}", "低")),
    "liked_but_worse_at_tasks": ("bad", LIKED_BUT[0].replace("{less}", "more"), LIKED_BUT[1].replace("{less}", "高")),
    "liked_and_right": (
        "good",
        "{stage} is preferred to {base} in {win} of comparisons and is right no less often ({change} points).",
        "{stage} 在 {win} 的比较中胜过 {base}，答对率也没有下降（{change} 个百分点）。"),
    "no_difference": (
        "note", "{stage} cannot be told from {base} by this judge: the interval of its win rate holds 50 %.",
        "按此裁判，{stage} 与 {base} 不分高下：胜率区间包含 50 %。"),
    "loses_its_words": (
        "bad",
        "{stage} loses its words: {after} of its sampled answers hold a word that exists nowhere, against {before} of "
        "{base}'s; it is {kl} nats a response away from it.",
        "{stage} 正在丢失词语：{after} 的采样回答含有不存在的词，而 {base} 为 {before}；每个回答偏离 {kl} 奈特。"),
    "past_the_peak": (
        "bad",
        "{stage} was ended past its peak: after {best_step} rollouts a judge that it does not learn from gave {best} "
        "points, after {last_step} only {last}, while it was still learning from its reward. The best policy was kept.",
        "{stage} 已越过峰值而停止：第 {best_step} 次采样后旁观裁判评分为 {best}，第 {last_step} 次后降至 {last}；"
        "保留了最好的策略。"),
    "learned_by_heart": (
        "note",
        "{stage} began to learn its rows by heart: the loss on rows held out was lowest ({lowest}) after update "
        "{best_step} and {last} after update {last_step}. The weights of update {best_step} were kept.",
        "{stage} 开始过拟合：留出数据的损失在第 {best_step} 次更新后最低（{lowest}），"
        "到第 {last_step} 次更新时为 {last}；保留了第 {best_step} 次更新的权重。"),
    "forgot": ("bad", *FORGOT),
    "forgot_without_rehearsal": ("bad", FORGOT[0].replace("{way}", "without rehearsal"),
                                 FORGOT[1].replace("{way}", "无复习")),
    "reward_model_near_its_ceiling": ("good", *REWARD_GAP),
    "reward_model_below_its_ceiling": ("note", *REWARD_GAP),
    "edited": (
        "note",
        "{stage} was interrupted and went on with code that had been edited in the meantime ({files}): part of it was "
        "made with the earlier code, and the same recipe may not give it again.",
        "{stage} 曾中断，继续时代码已被修改（{files}）：一部分由旧代码产生，同一配方未必能复现。"),
}
"""What a reader should not miss: how it is marked, and the sentence."""


def filled(texts: Pair, values: dict[str, str | Pair]) -> Pair:
    """Texts in both languages with their gaps filled; a value may itself be in both."""
    english, chinese = ({key: value if isinstance(value, str) else value[language] for key, value in values.items()}
                        for language in (0, 1))
    return texts[0].format(**english), texts[1].format(**chinese)


def words(key: str, **values: str | Pair) -> Pair:
    """Some of :data:`WORDS`, with their gaps filled."""
    return filled(WORDS[key], values)


def both(english: object, chinese: object) -> Markup:
    """Words in both languages, as HTML."""
    if str(english) == str(chinese):
        return escape(english)
    return Markup('<span class="en" lang="en">{}</span><span class="zh" lang="zh-Hans">{}</span>').format(
        english, chinese)


def both_svg(english: object, chinese: object) -> Markup:
    """The same inside an SVG text."""
    if str(english) == str(chinese):
        return escape(english)
    return Markup('<tspan class="en">{}</tspan><tspan class="zh">{}</tspan>').format(english, chinese)


def figure_words(key: str) -> Pair:
    """What a figure is called that several kinds of stages may have."""
    if key in FIGURES:
        return FIGURES[key]
    if "_vs_" in key:
        name, _, other = key.partition("_vs_")
        english, chinese = FIGURES.get(f"{name}_vs_sft", (name.replace("_", " ") + " against sft", name))
        return english.replace("SFT", other).replace(" sft", f" {other}"), chinese.replace("SFT", other)
    return key.replace("_", " "), key.replace("_", " ")


def task_figure_words(key: str) -> Pair:
    """What a figure of a task is called."""
    return TASK_FIGURES.get(key, (key.replace("_", " "), key.replace("_", " ")))


def task_words(name: str) -> Pair:
    """A family of tasks."""
    return name.replace("_", " "), TASKS.get(name, name)


def step_words(name: str) -> Pair:
    """A step of cleaning, or a kind of dirt."""
    return name.replace("_", " "), STEPS.get(name, name)


def part_words(name: str) -> Pair:
    """One of the parts that a reward model's accuracy is split into."""
    return PARTS.get(name, (name.replace("_", " "),) * 2)
