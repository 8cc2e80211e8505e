// Every word of the page, in English and Chinese.
export const WORDS = {
  en: {
    other: "中文", otherTitle: "切换到中文", skip: "Skip to the message box", model: "Model", sideBySide: "Side by side", newChat: "New chat", options: "Options", theme: "Light or dark",
    temperature: "Temperature", length: "Longest answer, in tokens", system: "System message", key: "API key of this server",
    hello: "Say something.", intro: "You are talking with a language model that was trained from raw text to this conversation.",
    introDuel: "Two models answer every message, and you do not see which is which until you have chosen.",
    message: "Message", placeholder: "Write a message", send: "Send", stop: "Stop", hint: "Enter sends, Shift+Enter is a new line.", careful: "Small models make things up.",
    you: "You", copy: "Copy", copied: "Copied", again: "Answer again", up: "Good answer", down: "Bad answer", thanks: "Thank you, that was kept.", taken: "Taken back.",
    better: "Which answer is better?", left: "is better", tie: "Equally good", bad: "Both are bad", chosen: "chosen", answer: "Answer",
    cut: "The answer was cut at the longest length.", stopped: "Stopped.", empty: "The model ended without a word.", writing: "is writing",
    noKey: "This server wants an API key: enter it above.", busy: "The model is busy; try again in a moment.", lost: "The server cannot be reached.", retry: "Try again",
    stages: { pretrain: "pretrained", sft: "fine-tuned", ppo: "RLHF · PPO", dpo: "RLHF · DPO", untrained: "untrained", grpo: "RLHF · GRPO", kto: "KTO" },
    ideas: ["Hello! What kind of work does Morira have?", "How much is 3 plus 4?", "Tell me what Gilira most likes to eat."],
  },
  zh: {
    other: "EN", otherTitle: "Switch to English", skip: "跳到输入框", model: "模型", sideBySide: "并排比较", newChat: "新对话", options: "选项", theme: "浅色或深色",
    temperature: "温度", length: "回答最长词元数", system: "系统消息", key: "本服务器的 API 密钥",
    hello: "说点什么吧。", intro: "与你对话的语言模型，是从原始文本一步步训练到这里的。",
    introDuel: "每条消息由两个模型各答一次；在你做出选择之前，不会显示谁是谁。",
    message: "消息", placeholder: "输入消息", send: "发送", stop: "停止", hint: "回车发送，Shift+回车换行。", careful: "小模型会编造内容。",
    you: "你", copy: "复制", copied: "已复制", again: "重新回答", up: "回答得好", down: "回答得不好", thanks: "谢谢，已记录。", taken: "已撤回。",
    better: "哪个回答更好？", left: "更好", tie: "一样好", bad: "都不好", chosen: "已选", answer: "回答",
    cut: "回答因达到最大长度而中断。", stopped: "已停止。", empty: "模型没有写出任何内容就结束了。", writing: "正在输入",
    noKey: "本服务器需要 API 密钥：请在上方填写。", busy: "模型正忙，请稍后再试。", lost: "无法连接服务器。", retry: "重试",
    stages: { pretrain: "预训练", sft: "监督微调", ppo: "RLHF · PPO", dpo: "RLHF · DPO", untrained: "未训练", grpo: "RLHF · GRPO", kto: "KTO" },
    ideas: ["Hello! What kind of work does Morira have?", "How much is 3 plus 4?", "Tell me what Gilira most likes to eat."],
  },
};
