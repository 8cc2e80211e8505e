// The studio's words, in English and Chinese.
const WORDS = {
  skip: ["Skip to the content", "跳到正文"],
  runs: ["Runs", "运行"], start: ["Start a run", "开始运行"], compare: ["Compare", "比较"],
  sign_in: ["The studio's key", "工作台密钥"], key: ["Key", "密钥"], enter: ["Enter", "进入"],
  unreachable: ["The studio does not answer. Is it running?", "工作台没有响应。它在运行吗？"],
  language: ["中文", "English"], light: ["Light or dark", "浅色或深色"],
  all: ["all", "全部"], running: ["running", "运行中"], finished: ["finished", "已完成"], failed: ["failed", "失败"],
  interrupted: ["interrupted", "已中断"], killed: ["killed", "被终止"], waiting: ["waiting", "等待中"],
  search: ["Search by name", "按名称搜索"], nothing_yet: ["No run here yet.", "这里还没有运行。"],
  first_run: ["Start the first one", "开始第一个运行"], nothing_found: ["No run fits.", "没有符合的运行。"],
  run: ["Run", "运行"], state: ["State", "状态"], begun: ["Begun", "开始"], took: ["Took", "用时"], figures: ["Figures", "指标"],
  left: ["left", "剩余"], stages_done: ["stages done", "个阶段完成"], more: ["More", "更多"], of: ["of", "/"],
  hours: ["h", "小时"], minutes: ["min", "分"], seconds_short: ["s", "秒"],
  stop: ["Stop", "停止"], stop_now: ["Stop without waiting", "立即停止"], again: ["Go on", "继续"], report: ["Report", "报告"],
  stopping: ["It stops at the next step, and goes on from its last checkpoint when you let it.", "将在下一步停止；继续时从最近的检查点开始。"],
  withdraw: ["Take out of the queue", "移出队列"], queue: ["Waiting to start", "排队等待"],
  stages: ["Stages", "阶段"], curves: ["Curves", "曲线"], samples: ["Samples", "样本"], log: ["What was said", "日志"],
  recipe: ["Recipe", "配方"], settings: ["Settings that are not the defaults", "非默认设置"], answers: ["Answers", "回答"],
  ask_people: ["Ask people what it leaves open", "请人判断分歧"], asking: ["Looking for what it leaves open …", "正在查找分歧……"], in_project: ["in the feedback project", "放入标注项目"],
  asked_people: ["# disagreements found; new in the project: ", "找到 # 处分歧；新加入项目："], asked_again: ["asked again: ", "再次询问："], refused_rows: ["refused: ", "被拒绝："], open_it: ["People judge them in", "标注命令："],
  talk: ["Talk with it", "与它对话"], talk_begins: ["The model is being loaded …", "正在加载模型……"],
  preview: ["What carries loss", "哪些词元计入损失"], previewing: ["Making a sample …", "正在取样……"], carries: ["of # tokens carry loss", "个词元计入损失（共 # 个）"],
  figures_and_settings: ["Figures and settings", "指标与设置"], only_different: ["Only what differs", "仅显示不同项"],
  download: ["Download", "下载"], copy: ["Copy", "复制"], copied: ["Copied", "已复制"],
  smoothing: ["Smoothing", "平滑"], log_axis: ["Logarithmic axis", "对数坐标"], axis: ["Against", "横轴"],
  step: ["step", "步"], tokens: ["tokens", "词元"], seconds: ["seconds", "秒"], reset: ["Whole range", "完整范围"],
  drag: ["Drag over a chart to see a part of it; + and − do so by key.", "在图上拖动可放大一段；也可用 + 和 − 键。"],
  not_finite: ["is no number any more", "不再是有效数字"], collapse: ["has collapsed", "已崩溃"],
  fooled: ["The reward rises while what it stands for falls", "奖励上升而真实目标下降"], plateau: ["has stopped falling", "不再下降"],
  at_step: ["at step", "于第"], prompt: ["Prompt", "提示"], score: ["score", "得分"], stale: ["The connection was lost; trying again.", "连接中断，正在重试。"],
  choose: ["What do you want to do?", "您想做什么？"],
  "fine-tune": ["Fine-tune a model on my rows", "用我的数据微调模型"], align: ["Align a model with my comparisons", "用我的比较数据对齐模型"],
  whole: ["The whole way, at toy scale", "完整流程（玩具规模）"], clean: ["Clean my documents", "清洗我的文档"], own: ["A recipe of my own", "我自己的配方"],
  yaml: ["The recipe, as the command line runs it", "配方（与命令行完全一致）"], start_it: ["Start", "开始"], line_up: ["It starts at once, or waits for the runs before it.", "立即开始，或排在先前的运行之后。"],
  exists: ["A run of this name is there: what is finished with the same settings is not done again.", "已有同名运行：设置相同且已完成的阶段不会重做。"],
  recipe_good: ["The recipe is right.", "配方正确。"], upload: ["Upload a file", "上传文件"], uploaded: ["It lies at", "文件位于"],
  estimate: ["How long will it take?", "需要多久？"], estimating: ["Measuring for about ten seconds …", "正在测量，约十秒……"], together: ["together", "合计"], unknown: ["not predicted", "无法预测"],
  needed: ["needed", "必填"], changed_only: ["Only what the recipe says", "仅显示配方中的设置"], default: ["default", "默认"], take_out: ["Default", "恢复默认"],
  started: ["It is in the queue.", "已加入队列。"], comments_go: ["Changing a setting in the form writes the text anew; comments in it go.", "通过表单修改会重写文本，其中的注释会丢失。"],
  pick_runs: ["Tick runs to compare them.", "勾选要比较的运行。"], compare_ticked: ["Compare what is ticked", "比较所选"],
  differ: ["Settings that differ", "不同的设置"], results: ["Results", "结果"], same: ["All settings are the same.", "所有设置相同。"], stage: ["Stage", "阶段"], setting: ["Setting", "设置"],
  models: ["Models", "模型"], find: ["Find in prompts and answers", "在提示和回答中查找"], right: ["right", "正确"], wrong: ["wrong", "错误"],
  is_right: ["is right", "正确"], is_wrong: ["is wrong", "错误"], any: ["any", "不限"], order: ["Order", "排序"], asked: ["as asked", "原顺序"], longest: ["longest", "最长"],
  shortest: ["shortest", "最短"], different: ["most different", "差异最大"], link: ["Link to this row", "此行的链接"], rows: ["rows", "行"], previous: ["Previous", "上一页"], next: ["Next", "下一页"],
  truth: ["Right would be", "正确答案"], no_answers: ["No model has been examined in this run.", "此运行中尚无模型接受考试。"], memory: ["memory", "内存"], lineage: ["made from", "来源"],
  started_by: ["Recipe file", "配方文件"], not_there: ["There is nothing here.", "这里什么都没有。"], points: ["Numbers", "数值"], left_out: ["rows of the log are not drawn", "行日志未绘出"],
  through: ["See through", "透视"], through_about: ["What a model makes of a text, token by token.", "逐个词元地看模型如何处理一段文本。"], none: ["none", "无"],
  model: ["Model", "模型"], reward_model: ["Reward model", "奖励模型"], reference_model: ["Reference", "参考模型"], no_models: ["This run has made no model yet.", "此运行尚未产生模型。"], no_writer: ["This run has no model that writes.", "此运行没有能写文本的模型。"],
  not_looked: ["Models that cannot be looked through", "无法透视的模型"], looking_at_models: ["Looking for models …", "正在查找模型……"], looking: ["Looking …", "正在计算……"], look: ["Look", "查看"],
  as_chat: ["A chat", "对话"], as_text: ["A text", "文本"], who: ["Who speaks in message", "发言者，消息"], message: ["Message", "消息"], remove: ["Take out message", "移除消息"], add_message: ["Add a message", "添加消息"],
  another_example: ["Another question of the run", "换一个此运行中的问题"], tokens_title: ["Tokens", "词元"], tokens_of_text: ["The text's tokens", "文本的词元"], colour_by: ["Colour by", "着色依据"],
  of_them_learned: ["# of them carry loss", "其中 # 个计入损失"], by_pieces: ["piece", "片段"], by_probability: ["probability", "概率"], by_entropy: ["entropy", "熵"], by_attention: ["attention of the chosen token", "所选词元的注意力"], by_score: ["score", "得分"], by_kl: ["log p − log r", "log p − log r"],
  back_to_text: ["Back to the text", "回到原文"], is_special: ["special", "特殊词元"], is_learned: ["carries loss", "计入损失"], walk: ["Click a token, or walk with the arrow keys.", "点击词元，或用方向键移动。"], rendered: ["As the template renders it", "模板渲染后的文本"],
  place: ["place", "位置"], bytes: ["bytes", "字节"], rank: ["rank", "名次"], token: ["token", "词元"], probability: ["probability", "概率"], entropy: ["entropy", "熵"], share: ["share", "占比"],
  next_title: ["What comes next", "接下来是什么"], after: ["After", "在其后："], stands: ["There stands", "实际是"], nothing_after: ["Nothing follows yet: pick a token to go on.", "后面还没有内容：选一个词元继续。"], go_on_with: ["Go on with", "继续："],
  attention_title: ["Attention", "注意力"], layer: ["layer", "层"], head: ["head", "头"], map_about: ["A row looks at the columns.", "每一行注视各列。"], looks_at: ["looks at", "注视"], prefix: ["prefix before the text", "文本之前的前缀"],
  scores_title: ["Score along the answer", "沿回答的得分"], scores_about: ["What the reward model would give the answer if it ended after each token, centred on demonstrations:", "若回答在各词元后结束，奖励模型给出的得分（以示范为零点）："],
  kl_title: ["Divergence from the reference", "与参考模型的差异"], kl_about: ["Of each token that stands there, and of the whole distribution it came from:", "实际词元的对数概率之差，以及其所来自的整个分布的差异："], over_answer: ["Summed over the answer", "对回答求和"],
};

export const language = () => document.documentElement.dataset.language || "en";
export const word = (key) => (WORDS[key] || [key, key])[language() === "zh" ? 1 : 0];

const kept = (name, value) => {
  try {
    if (value === undefined) return localStorage.getItem(`trivium-${name}`);
    localStorage.setItem(`trivium-${name}`, value);
  } catch { /* a private window */ }
  return null;
};

export function speak(code) {
  kept("language", code);
  document.documentElement.dataset.language = code;
  document.documentElement.lang = code === "zh" ? "zh-Hans" : "en";
}
export function light(name) {
  if (name === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = name;
  kept("theme", name);
}
export const shown = () => document.documentElement.dataset.theme ||
  (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");

// Words of elements that stand in a page's HTML.
export function spell(root) {
  for (const node of root.querySelectorAll("[data-word]")) node.textContent = word(node.dataset.word);
}

speak(kept("language") || ((navigator.language || "").startsWith("zh") ? "zh" : "en"));
light(kept("theme") || "auto");
