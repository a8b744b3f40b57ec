// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include "policy/chat_terms.h"

#include <algorithm>

#include "kvist/error.h"

namespace kvist {
namespace {

// clang-format off
constexpr std::string_view kProgramming[] = {
    "python", "javascript", "typescript", "java", "c++", "c#", "golang", "kotlin", "haskell", "php", "sql", "html",
    "css", "bash", "shell script", "powershell", "vba", "json", "yaml", "xml", "regex*", "git", "github", "docker*",
    "kubernetes", "kubectl", "linux", "nginx", "postgres*", "mysql", "sqlite", "redis", "mongodb", "vue", "angular",
    "nodejs", "npm", "webpack", "django", "flask", "spring boot", "pandas", "numpy", "pytorch", "tensorflow", "cuda",
    "opengl", "godot", "cmake", "makefile", "gcc", "vim", "arduino", "stm32", "latex", "crontab", "excel macro",
    "cli", "sdk", "api", "apis", "http", "localhost", "cpu", "jvm", "codebase", "source code", "coding",
    "programming", "compil*", "linker", "debug*", "stack trace", "traceback", "segfault*", "runtime", "syntax",
    "array", "arrays", "linked list", "hash map", "hashmap", "dict", "dicts", "tuple", "integer", "ints", "boolean",
    "enum", "struct", "subclass*", "constructor", "object literal", "null", "recursion", "recursive*", "iterator",
    "for loop", "while loop", "lambda", "closure", "callback*", "async", "await", "thread safe", "mutex", "deadlock",
    "race condition", "goroutine*", "coroutine*", "binary tree", "binary search", "algorithm*", "big o", "o(n",
    "memory leak", "garbage collect*", "refactor*", "unit test*", "unit tests", "pull request", "commit", "commits",
    "rebase", "merge conflict*", "repository", "repo", "backend", "frontend", "endpoint*", "database", "query",
    "queries", "schema", "deploy*", "one liner", "command line", "cron", "environment variable*", "parse*", "parsing",
    "serializ*", "deserializ*", "webhook*", "div", "event handler", "log file", "stdout", "batch job",
    "neural network", "training loop", "tensor*", "spreadsheet formula", "design pattern*", "program crashes",
    "code review", "command line flag", "null pointer", "type error", "object oriented", "commit message",
    "代码", "编程", "函数", "数组", "指针", "链表", "哈希", "字符串", "递归", "算法", "复杂度", "动态规划", "二叉树",
    "线程", "协程", "死锁", "并发", "异步", "回调", "单例", "设计模式", "重构", "编译", "链接错误", "报错", "闪退",
    "调试", "断点", "堆栈", "数据库", "主键", "消息队列", "服务器", "端口", "部署", "前端", "后端", "跨域", "组件",
    "浏览器", "爬虫", "脚本", "命令行", "终端", "配置文件", "环境变量", "正则", "合并冲突", "单元测试", "测试用例",
    "小程序", "单片机", "串口", "嵌入式", "源码", "开源库", "力扣", "时间复杂度", "空间复杂度", "遍历", "装饰器",
    "宏定义", "浮点", "响应式", "学习率", "梯度", "显存", "幂等",
    "semaphore*", "kernel", "socket", "sockets", "tcp", "udp", "operating system", "virtual memory", "program that",
    "computer program", "c program", "信号量", "互斥锁", "操作系统", "虚拟内存", "网络协议", "三次握手", "编译器",
    "解释器",
};
constexpr std::string_view kAmbiguous[] = {
    "code", "rust", "swift", "ruby", "perl", "react", "node", "unity", "bug", "bugs", "exception", "exceptions", "function",
    "functions", "method", "variable", "variables", "pointer", "pointers", "dictionary", "string", "strings", "class",
    "classes", "inheritance", "interface", "thread", "threads", "heap", "sort", "sorting", "complexity", "mock",
    "committed", "branch", "library", "libraries", "package", "dependency", "dependencies", "framework", "server",
    "table", "column", "columns", "rows", "index", "container", "pod", "script", "scripts", "terminal", "config",
    "encod*", "component", "selector", "logs", "gradient", "macro",
    "程序", "变量", "循环", "排序", "进程", "接口", "类型", "对象", "实例", "继承", "构造", "异常", "崩溃", "内存",
    "泄漏", "索引", "事务", "查询", "缓存", "镜像", "容器", "渲染", "日志", "依赖", "框架", "分支", "仓库", "注释",
    "中断", "超时", "生命周期", "溢出", "布局", "训练集",
    "program", "programs",
};
constexpr std::string_view kCode[] = {
    "function", "method", "class", "script", "program", "code", "snippet", "regex", "query", "macro", "one liner",
    "command", "dockerfile", "makefile", "unit test*", "test cases", "api", "endpoint", "component", "website",
    "web page", "app", "bot", "scraper", "parser", "algorithm", "loop", "extension", "plugin", "implementation",
    "代码", "函数", "脚本", "程序", "正则", "语句", "命令", "接口", "类", "算法", "排序", "组件", "网页", "页面", "插件",
    "爬虫", "测试", "工具", "宏", "dockerfile", "sql",
};
constexpr std::string_view kCreative[] = {
    "story", "stories", "tale", "tales", "poem*", "poetry", "verse", "verses", "haiku*", "sonnet*", "limerick*",
    "ballad", "ode", "lyrics", "song", "rap", "shanty", "nursery rhyme", "novel", "novella", "fiction", "fanfic*",
    "flash fiction", "screenplay", "script for a", "scene", "scenes", "dialogue", "monologue", "soliloquy", "play",
    "skit", "sketch", "sitcom", "comic", "fable", "myth", "legend", "fairy tale", "bedtime story", "ghost story",
    "riddle*", "joke", "jokes", "slogan*", "tagline*", "toast", "eulogy", "love letter", "speech", "letter home",
    "diary entry", "character", "characters", "villain", "metaphor*", "proverb*", "backstory", "plot", "plot twist",
    "prologue", "epilogue", "opening line", "title ideas", "names for", "world", "parody", "prose",
    "故事", "诗", "诗歌", "情诗", "古诗", "现代诗", "七律", "绝句", "藏头诗", "俳句", "词", "歌词", "副歌", "小说",
    "短篇", "散文", "童话", "寓言", "神话", "传说", "剧本", "短剧", "小品", "相声", "段子", "脱口秀", "台词", "对白",
    "独白", "旁白", "对联", "横批", "谜语", "童谣", "广告语", "标语", "文案", "情书", "祭文", "致辞", "作文", "片段",
    "场景", "情节", "人物小传", "番外", "同人", "世界观", "设定", "桥段", "反派", "结局",
    "email", "letter", "post", "posts", "headline*", "announcement", "caption*", "blog post", "cover letter",
    "description", "邮件", "信", "辞职信", "感谢信", "倡议书", "朋友圈", "小红书", "检讨", "发言稿", "标题", "贺词",
    "自我介绍",
};
constexpr std::string_view kWriting[] = {
    "protagonist*", "antagonist*", "villain*", "hero", "heroine", "narrator", "point of view", "third person",
    "second person", "first person", "stanza*", "chorus", "couplet*", "rhym*", "iambic", "chapter one", "cold open",
    "punchline", "plot", "subplot", "twist", "suspense", "worldbuilding", "fantasy", "sci fi", "science fiction",
    "dragon*", "wizard*", "knight*", "haunted", "ghost*", "superhero*", "magic", "magical", "kingdom", "campaign",
    "role play", "roleplay", "in character", "fictional", "imaginary", "imagine", "whisper*", "poem", "poet*", "story",
    "novel", "character", "characters", "scene", "dialogue", "lyrics", "screenplay", "thriller", "horror", "mystery",
    "interior night", "int.", "ext.", "monologue", "moral", "fairy", "tavern", "detective", "metaphor*",
    "主角", "女主", "男主", "反派", "配角", "人物", "情节", "剧情", "伏笔", "悬念", "悬疑", "反转", "穿越", "修仙",
    "武侠", "江湖", "科幻", "奇幻", "赛博朋克", "恐怖", "言情", "虚构", "想象", "意象", "押韵", "韵脚", "诗", "小说",
    "故事", "童话", "台词", "对白", "独白", "旁白", "歌词", "副歌", "角色", "扮演", "跑团", "剧本", "世界观", "设定",
    "画面感", "有梗", "笔下", "第一章", "章节大纲", "大纲", "师父", "侠客", "公主", "国王", "妖", "魔法", "精灵", "逗哏", "捧哏",
};
constexpr std::string_view kRoles[] = {
    "act as", "pretend", "role play", "roleplay", "you are a", "you are an", "you are the", "you're a", "you're an",
    "you're the", "imagine you", "assume the role", "take on the role", "play the role", "play the part", "speak like",
    "talk like", "in character", "if you were", "as a character", "how would you introduce", "as if you were",
    "扮演", "假扮", "角色", "模拟", "假设你", "假如你", "如果你是", "你是一个", "你是一名", "你是一位", "你是一只", "你现在是",
    "现在你是", "开始你是", "你来当", "你来演", "以下是你的身份", "用第一人称", "不许说自己是", "你叫",
};
constexpr std::string_view kStyle[] = {
    "in the style of", "style of", "in the manner of", "in the voice of", "make it funnier", "funnier", "darker",
    "lighter", "warmer", "colder", "sadder", "scarier", "wittier", "more dramatic", "melancholic", "whimsical",
    "tender", "poetic", "cheeky", "over the top", "slow burn", "stay in character", "continue from", "continue the",
    "continue this", "keep going", "go on from", "next scene", "next chapter", "next verse", "open it", "continue", "happy ending",
     "add a twist", "make up", "invent", "compose", "brainstorm", "tone", "beat 1", "a page or so",
    "续写", "接着写", "接着讲", "接着往下", "继续写", "扩写", "改写成", "仿写", "仿照", "口吻", "风格", "文风", "语气",
    "押韵", "开头", "结尾", "煽情", "搞笑", "治愈", "温暖", "细思极恐", "文言文", "视角", "第一人称", "第三人称",
    "改编", "构思", "创作", "编一个", "编个", "虚构", "接龙", "然后呢", "展开", "逗", "扎心", "感觉的",
};
constexpr std::string_view kMaking[] = {
    "write", "writing", "rewrite", "compose", "create", "make", "make up", "invent", "tell", "draft", "pen",
    "give me", "need", "want", "continue", "imagine", "help me with", "generate", "come up with", "design", "build",
    "implement", "working on", "ideas for", "show me", "do me", "can i have", "brainstorm",
    "写", "编", "讲", "来一", "来段", "来首", "来个", "作一", "创作", "续写", "改编", "仿", "想一个", "想几句", "设计",
    "构思", "起草", "生成", "给我", "给", "求", "帮我", "实现", "做一个", "做个", "拟",
    "develop", "announce", "模仿", "发布一", "发一",
};
constexpr std::string_view kFixing[] = {
    "fix", "debug", "optimi*", "refactor", "review", "run", "runs", "test", "compile", "implement", "call", "calls",
    "return", "returns", "import", "install", "deploy", "parse", "sort", "loop through", "iterate",
    "修", "改", "优化", "调试", "运行", "调用", "重构", "实现", "执行", "启动", "安装", "打印", "返回",
};
constexpr std::string_view kDocuments[] = {
    "document*", "report", "reports", "contract*", "agreement", "lease", "policy", "policies", "paper", "papers",
    "article", "articles", "essay", "thesis", "dissertation", "manuscript", "draft", "drafts", "chapter*", "section*",
    "paragraph*", "passage*", "clause*", "page", "pages", "appendix", "annex", "schedule", "abstract", "transcript",
    "minutes", "handbook", "manual", "user guide", "guidance", "whitepaper", "white paper", "brochure", "pdf", "docx",
    "attachment*", "file", "text", "excerpt", "email thread", "newsletter", "regulation*", "terms of service",
    "terms and conditions", "bylaws", "rules", "proposal", "literature review", "bibliography", "citation*",
    "references", "cited", "footnote*", "table of contents", "summary", "discharge summary", "board pack", "statute",
    "ruling", "judgment", "verdict", "speech", "memoir*", "biography", "author", "author's", "the book", "write up",
    "文件", "文档", "文章", "全文", "原文", "正文", "论文", "摘要", "报告", "合同", "协议", "条款", "章节", "段落",
    "附件", "附录", "说明书", "手册", "通知", "办法", "规定", "条例", "细则", "法规", "判决书", "标书", "投标",
    "招标", "财报", "年报", "纪要", "会议记录", "讲稿", "演讲稿", "书稿", "稿子", "初稿", "终稿", "教材", "课文", "材料",
    "文献", "综述", "专利", "新闻稿", "报道", "访谈", "录音转写", "聊天记录", "需求文档", "小结", "病历", "回忆录", "游记",
    "家谱", "申诉信", "作者", "这本书", "诗集", "白皮书", "电子版", "表格", "制度", "保单",
};
constexpr std::string_view kActs[] = {
    "summari*", "summary", "tldr", "tl;dr", "condense", "shorten", "tighten", "proofread", "key points", "main points",
    "main themes", "main argument", "key claim", "key takeaways", "bullet points", "bullets", "outline the",
    "according to", "extract", "list all", "go through", "go over", "read through", "compare the", "translate",
    "in plain english", "plain english", "explain what it says", "what does it say", "does it say", "paraphrase",
    "quote", "quotes", "quote me", "where does", "which section", "which page", "which chapter", "contradict*",
    "consisten*", "checked", "check whether", "cut it", "word limit", "words max", "action items", "headline numbers",
    "page refs", "index by", "notes for", "analyse", "analyze", "analysis of",
    "总结", "概括", "归纳", "提炼", "摘要", "要点", "重点", "缩写", "压缩", "精简", "翻译", "翻成", "译成", "润色", "校对",
    "错别字", "语病", "通读", "解读", "分析一下", "根据", "按照", "依据", "核对", "对比", "对照", "列出", "列个表", "整理",
    "摘出", "引用", "出处", "主旨", "中心思想", "段落大意", "讲了什么", "说了什么", "主要讲", "大意", "前后矛盾", "自相矛盾",
    "大白话", "用人话", "逐段", "逐句", "逐条", "捋一遍", "分段", "提纲", "审阅", "汇报",
};
constexpr std::string_view kGivenTextTerms[] = {
    "attached", "the attached", "i attached", "uploaded", "i pasted", "pasted", "pasting", "paste the", "below is",
    "below", "following", "above", "text above", "from the above", "i sent", "you have the", "i gave you", "given you",
    "here's the", "here is the", "here's a", "here are the", "this is from", "this paper", "this article", "this report",
    "this chapter", "this letter", "this contract", "this essay", "these rules", "these minutes", "the text",
    "you read", "earlier", "linked", "full text", "the file", "in the document", "in the text", "part 1", "part 2",
    "next bit", "back to the", "looking at the",
    "上面", "下面", "以下", "上文", "下文", "如下", "前面那", "刚才那", "上一条", "贴给你", "贴出来", "贴上来", "贴上",
    "贴的", "我贴", "上传", "传给你", "发给你", "发你", "转来", "附件", "原文", "全文", "这份", "那份", "这篇", "那篇",
    "这段", "这本", "这一章", "这封", "文中", "书里", "里面", "里写", "稿子你", "手里有", "看完", "读完", "第一部分", "第二部分",
};
constexpr std::string_view kSections[] = {
    "section", "sections", "chapter", "chapters", "clause", "article", "page", "pages", "p.", "pp.", "paragraph",
    "verse", "appendix", "schedule", "table", "figure", "part", "slide", "risk", "recital", "line",
    "章", "节", "条", "页", "款", "段", "部分", "回", "项", "卷", "则", "表",
};
constexpr std::string_view kMeasures[] = {
    "words", "word", "lines", "stanzas", "verses", "panel", "panels", "paragraphs", "pages", "minutes", "act", "acts",
    "字", "句", "段", "行", "首", "幕", "分钟",
};
constexpr std::string_view kEveryday[] = {
    "mum", "mom", "dad", "sister", "brother", "wife", "husband", "girlfriend", "boyfriend", "kid", "kids", "daughter",
    "son", "baby", "friend", "friends", "neighbour*", "neighbor*", "landlord", "boss", "colleague*", "doctor", "vet",
    "dentist", "cat", "dog", "plant*", "food", "dinner", "lunch", "breakfast", "cook*", "recipe", "rice", "coffee",
    "tea", "wine", "beer", "cafe", "restaurant", "weather", "rain", "cold", "hot", "train", "bus", "flight", "hotel",
    "visa", "holiday", "weekend", "tonight", "tomorrow", "yesterday", "today", "morning", "birthday", "wedding",
    "present", "gift", "movie", "film", "show", "episode", "football", "match", "gym", "run", "running", "yoga", "sleep",
    "tired", "sick", "headache", "pain", "hurts", "knee", "diet", "weight", "job", "salary", "rent", "money", "budget",
    "price", "worth", "buy", "phone", "laptop", "battery", "car", "bike", "school", "uni", "exam*", "hobby", "clothes",
    "wear", "shoes", "house", "room", "garden", "recommend", "should i", "any tips", "any idea", "is it normal",
    "capital of", "who is", "what's the word", "how long", "how much", "how many",
    "妈", "爸", "老公", "老婆", "女朋友", "男朋友", "孩子", "儿子", "女儿", "朋友", "同事", "同学", "室友", "邻居", "房东",
    "领导", "老师", "医生", "猫", "狗", "吃", "喝", "早餐", "晚饭", "火锅", "咖啡", "奶茶", "天气", "下雨", "带伞", "高铁",
    "地铁", "打车", "飞机", "酒店", "旅游", "旅行", "周末", "今晚", "昨晚", "昨天", "明天", "今天", "生日", "结婚",
    "相亲", "礼物", "电影", "电视剧", "比赛", "健身", "减肥", "减脂", "跑步", "失眠", "睡不着", "感冒", "发烧", "头疼",
    "疼", "工作", "工资", "辞职", "面试", "房租", "买房", "预算", "便宜", "贵", "推荐", "手机", "电脑", "考试", "考研",
    "驾照", "衣服", "眼镜", "怎么办", "靠谱", "好吗", "会不会", "要不要", "能不能吃", "多少钱", "多久",
};
constexpr std::string_view kSmallTalkTerms[] = {
    "hi", "hello", "hey", "thanks", "thank you", "thx", "cheers", "bye", "good night", "good morning", "lol", "haha*",
    "ugh", "sorry", "how are you", "bored", "nice", "ok", "okay", "cool", "sweet", "wow", "huh",
    "在吗", "你好", "谢谢", "多谢", "晚安", "早安", "再见", "哈哈", "嗯嗯", "好的", "唉", "哎", "辛苦了", "吐槽", "无聊",
    "随便聊", "气死", "吓死", "啊", "呀", "嘛", "吧",
};
// clang-format on

constexpr size_t kMostBytesBetween =
    60;  // of a verb and its object: about ten English words, twenty Chinese characters

bool IsWordByte(char c) {
  return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_';
}

// Where the term next begins at or after `from`; npos when it doesn't. length: of what was found.
size_t FindTerm(std::string_view text, std::string_view term, size_t from, size_t& length) {
  const bool is_prefix = term.back() == '*';
  const std::string_view letters = is_prefix ? term.substr(0, term.size() - 1) : term;
  length = letters.size();
  for (size_t at = text.find(letters, from); at != std::string_view::npos; at = text.find(letters, at + 1)) {
    if (!IsAscii(letters.front())) return at;
    const size_t end = at + letters.size();
    const bool begins = at == 0 || !IsWordByte(text[at - 1]) || !IsWordByte(letters.front());
    const bool ends = is_prefix || end == text.size() || !IsWordByte(text[end]) || !IsWordByte(letters.back());
    if (begins && ends) return at;
  }
  return std::string_view::npos;
}

template <class Visit>  // bool Visit(size_t begin, size_t end): whether to go on with this term
void ForEachTerm(std::string_view text, TermGroup group, Visit visit) {
  size_t length = 0;
  for (const std::string_view term : group) {
    size_t at = FindTerm(text, term, 0, length);
    while (at != std::string_view::npos && visit(at, at + length)) at = FindTerm(text, term, at + length, length);
  }
}

bool HasTerm(std::string_view text, TermGroup group) {
  size_t length = 0;
  return std::ranges::any_of(
      group, [&](std::string_view term) { return FindTerm(text, term, 0, length) != std::string_view::npos; });
}

// The part of the sentence before `end` that is near it.
std::string_view Before(std::string_view text, size_t end) {
  const size_t begin = end > kMostBytesBetween ? end - kMostBytesBetween : 0;
  std::string_view part = text.substr(begin, end - begin);
  for (const std::string_view stop : {".", "!", "?", "\n", "。", "！", "？"}) {
    const size_t at = part.rfind(stop);
    if (at != std::string_view::npos) part.remove_prefix(at + stop.size());
  }
  return part;
}

bool IsDigit(char c) {
  return c >= '0' && c <= '9';
}

bool EndsInChineseNumber(std::string_view text) {
  constexpr std::string_view kNumerals[] = {"一", "二", "两", "三", "四", "五", "六",
                                            "七", "八", "九", "十", "百", "千"};
  return std::ranges::any_of(kNumerals, [&](std::string_view numeral) { return text.ends_with(numeral); });
}

bool HasNumberBefore(std::string_view text, size_t begin) {
  const std::string_view before = text.substr(0, begin);
  const size_t last = before.find_last_not_of(" -");
  return last != std::string_view::npos && (IsDigit(before[last]) || EndsInChineseNumber(before.substr(0, last + 1)));
}

bool HasNumberAfter(std::string_view text, size_t end) {
  const size_t next = text.find_first_not_of(' ', end);
  return next != std::string_view::npos && IsDigit(text[next]);
}

}  // namespace

constinit const TermGroup kProgrammingWords = kProgramming;
constinit const TermGroup kAmbiguousWords = kAmbiguous;
constinit const TermGroup kCodeObjects = kCode;
constinit const TermGroup kCreativeObjects = kCreative;
constinit const TermGroup kCreativeWords = kWriting;
constinit const TermGroup kRoleWords = kRoles;
constinit const TermGroup kStyleWords = kStyle;
constinit const TermGroup kMakingVerbs = kMaking;
constinit const TermGroup kFixingVerbs = kFixing;
constinit const TermGroup kDocumentWords = kDocuments;
constinit const TermGroup kTextWorkWords = kActs;
constinit const TermGroup kGivenTextWords = kGivenTextTerms;
constinit const TermGroup kEverydayWords = kEveryday;
constinit const TermGroup kSmallTalkWords = kSmallTalkTerms;

std::string LowerAscii(std::string_view text) {
  std::string lower(text);
  for (char& c : lower) {
    if (c >= 'A' && c <= 'Z') c = char(c - 'A' + 'a');
  }
  return lower;
}

int CountTerms(std::string_view lower_text, TermGroup group) {
  int count = 0;
  ForEachTerm(lower_text, group, [&](size_t, size_t) {
    ++count;
    return true;
  });
  return count;
}

int CountRequests(std::string_view lower_text, TermGroup verbs, TermGroup objects) {
  int count = 0;
  ForEachTerm(lower_text, objects, [&](size_t begin, size_t) {
    const bool is_asked_for = HasTerm(Before(lower_text, begin), verbs);
    count += is_asked_for;
    return !is_asked_for;
  });
  return count;
}

int CountSectionNumbers(std::string_view lower_text) {
  int count = 0;
  ForEachTerm(lower_text, kSections, [&](size_t begin, size_t end) {
    count += IsAscii(lower_text[begin]) ? HasNumberAfter(lower_text, end) : HasNumberBefore(lower_text, begin);
    return true;
  });
  return count;
}

int CountWantedLengths(std::string_view lower_text) {
  int count = 0;
  ForEachTerm(lower_text, kMeasures, [&](size_t begin, size_t) {
    count += HasNumberBefore(lower_text, begin);
    return true;
  });
  return count;
}

bool BeginsWithTerm(std::string_view lower_text, TermGroup group) {
  constexpr size_t kBeginningBytes = 16;  // room for "a ", "funny "
  return HasTerm(lower_text.substr(0, kBeginningBytes), group);
}

}  // namespace kvist
