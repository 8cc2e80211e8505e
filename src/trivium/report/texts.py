"""The report's words, in English and Chinese. Both stand in the page; the switch shows one."""

from __future__ import annotations

from markupsafe import Markup, escape

STAGES = {  # a stage's kind: what it is, in both languages, and the school it belongs to
    "world": ("the embedded world", "内置小世界", "read"), "imports": ("rows brought in", "导入数据", "teach"),
    "filter": ("a filter of documents", "训练文档过滤器", "read"), "corpus": ("cleaning the documents", "清洗语料", "read"), "tokenizer": ("the tokenizer", "训练分词器", "read"),
    "tokens": ("text into tokens", "文本转词元", "read"), "pretrain": ("pretraining", "预训练", "read"),
    "sft": ("supervised fine-tuning", "监督微调", "teach"), "demonstrations": ("demonstrations", "示范", "teach"),
    "preferences": ("ranked responses", "收集偏好", "judge"), "reward": ("reward model", "奖励模型", "judge"),
    "ppo": ("reinforcement learning "
            "(PPO)", "强化学习（PPO）", "judge"), "dpo": ("direct preferences (DPO)", "直接偏好优化（DPO）", "judge"),
    "kto": ("thumbs up and down (KTO)", "赞与踩（KTO）", "judge"), "grpo": ("group-relative RL (GRPO)", "组相对强化学习（GRPO）", "judge"),
    "select": ("best of N (rejection "
               "sampling)", "N 选最优（拒绝采样）", "judge"), "feedback": ("people's feedback", "人的反馈", "judge"),
    "labels": ("labelled texts", "带标签文本", "read"), "pairs": ("pairs to translate", "翻译句对", "read"),
    "pictures": ("pictures with questions", "带问题的图片", "read"), "encode": ("pretraining, hidden tokens", "预训练（遮盖词元）", "read"),
    "spans": ("pretraining, cut-out spans", "预训练（挖空片段）", "read"), "vision": ("pretraining, hidden patches", "预训练（遮盖图块）", "read"),
    "selfinstruct": ("demonstrations by a model", "模型自写示范", "teach"), "revise": ("answers revised by a "
                                                                                 "constitution", "按宪章修订回答", "teach"),
    "classify": ("fine-tuning on labels", "按标签微调", "teach"), "translate": ("fine-tuning on pairs", "按句对微调", "teach"), "see": ("learning to see", "学习看图", "teach"),
    "ai_feedback": ("a model's rankings", "模型的排序", "judge"),
    "evaluate": ("the examination", "评测", "exam"), "report": ("this report", "本报告", "exam"),
}
SCHOOLS = {"read": ("It reads alone", "独自阅读"), "teach": ("It follows a teacher", "跟随老师"),
           "judge": ("It is judged by people", "接受评判"), "exam": ("It is examined", "接受考试")}

FIGURES = {  # what is measured
    "validation_bits_per_byte": ("bits per byte, held-out "
                                 "text", "每字节比特数（留出文本）"), "unigram_bits_per_byte": ("… of a unigram model", "……一元模型"),
    "tokens_per_second": ("tokens a second", "每秒词元数"), "parameters": ("parameters", "参数量"), "steps": ("updates", "更新步数"),
    "precision": ("precision", "精确率"), "recall": ("recall", "召回率"), "loss": ("loss (nats)", "损失（奈特）"), "accuracy": ("pairs ordered right", "成对排序正确率"),
    "ceiling": ("a judge without noise", "无噪声裁判"), "length_accuracy": ("length alone", "仅凭长度"), "accuracy_by_length": ("accuracy by length", "按长度的正确率"), "accuracy_by_margin": ("accuracy by how far apart people rated", "按评分差距的正确率"), "right_answers": ("right answers", "答对率"),
    "base_right_answers": ("… of the base model, "
                           "prompted", "……基座模型（少样本提示）"), "untrained_right_answers": ("… without pretraining", "……未经预训练"),
    "win_rate_vs_sft": ("wins against SFT", "对 SFT 的胜率"), "kl": ("KL to the start (nats)", "与起点的 KL（奈特）"), "mean_length": ("tokens an answer", "回答长度（词元）"),
    "mean_points": ("points by the judge", "裁判平均分"), "demonstrations": ("demonstrations", "示范条数"), "rankings": ("rankings", "排序条数"),
    "prompts": ("prompts", "提示数"), "responses": ("responses", "回答数"), "agreement": ("annotators agree", "标注者一致率"), "episodes": ("episodes", "回合数"),
    "documents": ("documents", "文档数"), "kept": ("kept", "保留"), "rejected": ("rejected", "剔除"), "vocab_size": ("vocabulary", "词表大小"), "shift": ("score shift", "分数平移"),
    "kl_coefficient": ("KL coefficient", "KL 系数"), "preference_accuracy": ("held-out pairs ordered "
                                                                           "right", "留出偏好对正确率"), "score": ("reward model's score", "奖励模型分数"),
    "entropy": ("entropy (nats a token)", "熵（奈特/词元）"), "clip_fraction": ("tokens clipped", "被截断的词元"), "explained_variance": ("explained variance", "解释方差"),
    "margin": ("margin", "间隔"), "validation_loss": ("held-out loss (nats)", "留出损失（奈特）"), "gradient_norm": ("gradient norm", "梯度范数"),
    "length_controlled_win_rate_vs_sft": ("wins against SFT, length held "
                                          "equal", "对 SFT 的胜率（控制长度）"), "right_difference_vs_sft": ("right answers, minus SFT's", "答对率与 SFT 之差"),
    "watched_score": ("what it is rewarded for", "所优化的奖励"), "bits_per_byte": ("bits per byte, held-out "
                                                                              "text", "每字节比特数（留出文本）"), "watched_gold": ("points by a judge that is not learned from", "旁观裁判评分"), "pretraining_loss": ("pretraining loss (nats)", "预训练损失（奈特）"),
    "liked_reward": ("implied reward, liked", "隐含奖励（赞）"), "disliked_reward": ("implied reward, disliked", "隐含奖励（踩）"), "mean_gain": ("gain by selection", "选优增益"),
    "better_by_truth": ("selected is better, by the "
                        "truth", "按真值更好的比例"), "made_up": ("made up", "编造"), "verbatim": ("word for word", "逐字复现"), "seconds": ("seconds", "秒"), "tokens": ("tokens", "词元数"),
    "learned_tokens": ("tokens learned from", "参与学习的词元"), "cut": ("rows cut to length", "截短的行"), "left_out": ("rows left out", "略去的行"), "length": ("tokens an answer", "回答长度（词元）"),
    "gold": ("the hidden rubric's points", "隐藏评分标准的得分"), "finished": ("answers that end", "正常结束的回答比例"),
}

PARTS = {
    "better is shorter": ("better is shorter", "较好者更短"), "alike": ("about as long", "长度相近"),
    "better is longer": ("better is longer", "较好者更长"), "0 or less": ("no point or less", "0 分及以下"),
    "1": ("1 point", "1 分"), "2": ("2 points", "2 分"), "3 or more": ("3 points or more", "3 分及以上")
}
"""What a reward model's accuracy is split by: lengths, and how far apart people rated the two responses."""

LINES = {"measured": "实测", "perfect": "理想"}
"""What the lines of a drawing are called, in Chinese; stages' and models' names stay as they are."""

TASKS = {
    "classification": "情感分类", "code": "小程序", "dialogue": "对话", "entity": "实体问答", "judgement": "同义判断",
    "reasoning": "分步算术", "refusal": "拒绝有害请求"
}
"""The families of the embedded world, in Chinese."""

STEPS = {
    "input": "输入", "read": "读取", "extract": "正文提取", "repetition": "重复过滤", "quality": "质量过滤", "c4": "C4 规则",
    "fineweb": "FineWeb 规则", "harmful": "有害内容", "exact_duplicates": "精确去重", "near_duplicates": "近似去重",
    "private": "隐私替换", "contamination": "去污染", "language": "语言", "address": "网址", "classifier": "质量分类器",
    "spans": "重复段落", "mixture": "配比", "boilerplate": "网页样板", "contaminated": "评测题泄漏", "exact_duplicate": "精确重复",
    "near_duplicate": "近似重复", "spam": "垃圾页", "output": "输出"
}
"""Cleaning's steps and kinds of dirt, in Chinese."""

Pair = tuple[str, str]
"""The same words in English and Chinese."""

TASK_FIGURES = {  # of `trivium evaluate`
    "accuracy": ("right choices", "选对率"), "accuracy_per_byte": ("right choices, by log-probability a "
                                                                "byte", "选对率（按每字节对数概率）"),
    "probability_of_right": ("probability of what is "
                             "right", "正确选项的概率"), "right": ("right answers", "答对率"), "answered": ("answers in which one could be found", "能读出答案的回答"),
    "bits_per_byte": ("bits per byte", "每字节比特数"), "refused_harmful": ("harmful requests declined", "拒绝有害请求"), "refused_harmless": ("harmless requests declined", "误拒无害请求"),
    "made_up": ("made up, of what does not exist", "对不存在之物的编造"), "made_up_with_a_value": ("made up with a value of the "
                                                                                          "world", "编造出世界中的值"),
    "admitted_existing": ("said not to know, of what exists", "对存在之物说不知道"), "verbatim": ("documents continued word for "
                                                                                         "word", "逐字续写的文档"),
    "overlap": ("tokens before the first "
                "difference", "首处差异之前的词元"), "placeholders_hold": ("placeholders that hold", "占位符保持"), "leaked": ("private data where a placeholder was", "占位符处的隐私数据"),
    "win_rate": ("wins against the baseline", "对基线的胜率"), "length_controlled": ("wins, length held equal", "胜率（控制长度）"),
}


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


def figure_words(key: str) -> tuple[str, str]:
    """What a figure is called."""
    if key in FIGURES:
        return FIGURES[key]
    if "_vs_" in key:
        name, _, other = key.partition("_vs_")
        english, chinese = FIGURES.get(f"{name}_vs_sft", (name.replace("_", " ") + " against sft", name))
        return english.replace("SFT", other).replace(" sft", f" {other}"), chinese.replace("SFT", other)
    return key.replace("_", " "), key.replace("_", " ")


def stage_words(name: str, kind: str) -> tuple[str, str]:
    """What a stage is called besides its name."""
    english, chinese, _ = STAGES.get(kind, (kind.replace("_", " "), kind, "judge"))
    return english, chinese


def task_figure_words(key: str) -> Pair:
    """What a figure of a task is called."""
    return TASK_FIGURES.get(key, (key.replace("_", " "), key.replace("_", " ")))
