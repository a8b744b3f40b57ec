// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include "policy/chat_class.h"

#include <algorithm>
#include <cctype>
#include <cmath>
#include <vector>

namespace kvist {
namespace {

constexpr const char* kClassNames[kNumChatClasses] = {"short_chat", "long_document", "code", "creative"};

// --- words ---

using Words = std::span<const std::string_view>;

constexpr std::string_view kProgrammingWords[] = {
    "algorithm",  "api",      "array",    "async",       "bash",     "bug",      "c++",     "cmake",      "code",
    "commit",     "compile",  "compiler", "css",         "csv",      "database", "debug",   "docker",     "endpoint",
    "exception",  "fastapi",  "flask",    "function",    "git",      "golang",   "html",    "http",       "java",
    "javascript", "json",     "kotlin",   "kubernetes",  "lambda",   "linux",    "loop",    "makefile",   "mutex",
    "mysql",      "node",     "npm",      "numpy",       "nullptr",  "pandas",   "parser",  "php",        "pip",
    "pointer",    "postgres", "program",  "programming", "python",   "query",    "react",   "recursion",  "refactor",
    "regex",      "ruby",     "rust",     "script",      "sdk",      "segfault", "server",  "shell",      "sql",
    "stack",      "struct",   "swift",    "syntax",      "terminal", "thread",   "timeout", "typescript", "unit",
    "unittest",   "variable", "vim",      "vue",         "webpack",  "yaml",     "repo",    "branch",     "merge",
    "dataframe",  "backend",  "frontend", "cuda",        "gpu",      "malloc",   "null",    "boolean",    "integer",
    "class",      "method",   "library",  "import",      "pytest",   "deadlock", "latency", "cache",      "cron",
    "crontab",    "chrome",   "android",  "ios",         "wpf",      "unity",    "godot",   "spring",     "constructor",
    "static",     "nginx",    "redis",    "kafka",       "ssh",      "tcp",      "regexp",  "liner"};
constexpr std::string_view kProgrammingPhrases[] = {
    "代码", "编程", "程序",   "函数", "变量", "报错",     "编译", "调试",     "算法", "数组",
    "循环", "接口", "数据库", "正则", "脚本", "线程",     "指针", "内存泄漏", "前端", "后端",
    "爬虫", "递归", "异步",   "部署", "重构", "单元测试", "死锁", "分支",     "提交", "仓库",
    "容器", "查询", "字符串", "链表", "排序", "类型",     "参数", "对象",     "依赖", "版本冲突",
    "内存", "泄漏", "串口",   "中断", "索引", "事务",     "缓存", "服务器",   "源码", "日志"};
constexpr std::string_view kErrorShapes[] = {"error:",       "error[",      "exception:",  "traceback",  "undefined",
                                             "segmentation", "stack trace", "failed with", "errno",      "nullpointer",
                                             "typeerror",    "keyerror",    "syntaxerror", "valueerror", "panic",
                                             "warning:",     "exit code",   "报错",        "抛异常",     "崩溃"};
constexpr std::string_view kCreativeWords[] = {
    "poem",        "poetry",        "story",      "stories", "novel",     "haiku",       "sonnet",  "lyrics",
    "song",        "limerick",      "fairy",      "tale",    "fantasy",   "protagonist", "villain", "character",
    "plot",        "dialogue",      "screenplay", "scene",   "verse",     "rhyme",       "rhyming", "stanza",
    "fiction",     "narrator",      "monologue",  "slogan",  "tagline",   "dragon",      "wizard",  "metaphor",
    "imagine",     "imaginary",     "ending",     "chapter", "prologue",  "backstory",   "ballad",  "fable",
    "myth",        "worldbuilding", "parody",     "sketch",  "toast",     "speech",      "names",   "detective",
    "ghost",       "eulogy",        "rap",        "riddle",  "punchline", "comic",       "lullaby", "epic",
    "shakespeare", "pun",           "joke"};
constexpr std::string_view kCreativePhrases[] = {
    "诗",     "故事", "小说", "童话", "歌词",   "散文", "剧本", "对白", "主角",   "情节",  "人物",
    "续写",   "押韵", "俳句", "寓言", "武侠",   "科幻", "悬疑", "结尾", "开头",   "文案",  "口号",
    "广告语", "虚构", "想象", "设定", "台词",   "相声", "段子", "情书", "祝福语", "对联",  "七言",
    "五言",   "绝句", "穿越", "反派", "世界观", "谜语", "笑话", "歌",   "情诗",   "打油诗"};
constexpr std::string_view kMakingWords[] = {"write", "compose", "rewrite", "continue",   "invent", "create",
                                             "draft", "make",    "give",    "brainstorm", "craft",  "pen"};
constexpr std::string_view kMakingPhrases[] = {"写一",   "写首", "写个", "写篇",   "写段",   "编一",
                                               "编个",   "创作", "续写", "改写",   "帮我写", "来一首",
                                               "来一段", "来个", "再写", "作一首", "构思"};
constexpr std::string_view kDocumentWords[] = {
    "document", "report",     "article",  "paper",    "contract", "agreement", "clause",     "chapter",
    "section",  "paragraph",  "pdf",      "attached", "pasted",   "minutes",   "transcript", "thesis",
    "abstract", "appendix",   "policy",   "manual",   "table",    "page",      "pages",      "text",
    "passage",  "excerpt",    "lease",    "tenant",   "landlord", "footnote",  "findings",   "author",
    "memo",     "regulation", "handbook", "brochure", "notice",   "terms",     "quarter",    "proposal"};
constexpr std::string_view kDocumentPhrases[] = {
    "论文", "文章", "报告", "合同",     "文档",   "章",   "条款", "摘要", "附件",   "以下", "下面", "原文",
    "这段", "这篇", "全文", "会议纪要", "文中",   "作者", "段落", "材料", "说明书", "手册", "制度", "通知",
    "协议", "租赁", "甲方", "乙方",     "第一条", "本文", "引言", "年报", "公告",   "规定", "办法"};
constexpr std::string_view kReadingWords[] = {
    "summarise", "summarize", "summary",   "extract", "outline", "according", "says",       "mention",
    "mentions",  "mentioned", "list",      "compare", "bullet",  "points",    "conclusion", "above",
    "below",     "translate", "highlight", "key",     "main",    "argument"};
constexpr std::string_view kReadingPhrases[] = {"总结", "概括", "归纳", "提取", "根据",     "列出",
                                                "要点", "梳理", "提炼", "摘要", "说了什么", "提到",
                                                "大意", "主旨", "结论", "对照", "找出",     "翻译"};

bool IsWordByte(unsigned char c) {
  return std::isalnum(c) != 0 || c == '+' || c == '\'';
}

std::string Lower(std::string_view text) {
  std::string lower(text);
  for (char& c : lower) c = char(std::tolower(static_cast<unsigned char>(c)));
  return lower;
}

// Whole words of a lower-case text; a plural counts as its singular does.
double CountWords(const std::string& lower, Words words) {
  double count = 0;
  for (size_t begin = 0; begin < lower.size();) {
    size_t end = begin;
    while (end < lower.size() && IsWordByte(static_cast<unsigned char>(lower[end]))) ++end;
    if (end == begin) {
      ++begin;
      continue;
    }
    const std::string_view word(lower.data() + begin, end - begin);
    const auto is_word = [&](std::string_view w) { return std::ranges::find(words, w) != words.end(); };
    if (is_word(word) || (word.size() > 3 && word.back() == 's' && is_word(word.substr(0, word.size() - 1)))) ++count;
    begin = end;
  }
  return count;
}

double CountPhrases(const std::string& text, Words phrases) {
  double count = 0;
  for (const std::string_view phrase : phrases) {
    for (size_t at = text.find(phrase); at != std::string::npos; at = text.find(phrase, at + phrase.size())) ++count;
  }
  return count;
}

double Count(const std::string& lower, Words words, Words phrases) {
  return CountWords(lower, words) + CountPhrases(lower, phrases);
}

// --- shapes ---

// Chinese says as much in one character as English in about three letters.
double LettersOf(std::string_view text) {
  double letters = 0;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x80) letters += 1;
    if (byte >= 0xe0) letters += 3;
  }
  return letters;
}

double ChineseShare(std::string_view text) {
  const auto leads = std::ranges::count_if(text, [](char c) { return static_cast<unsigned char>(c) >= 0xe3; });
  const auto ascii = std::ranges::count_if(text, [](char c) { return std::isalpha(static_cast<unsigned char>(c)); });
  return double(leads) / double(std::max<int64_t>(1, leads + ascii));
}

double CodePunctuation(std::string_view text) {
  return double(std::ranges::count_if(text, [](char c) { return std::string_view("{}();=<>[]_/\\#|&").contains(c); }));
}

// snake_case, camelCase, call(), a.b, and operators that prose does not have.
double Identifiers(std::string_view text) {
  double count = 0;
  const auto at = [&](size_t i) { return i < text.size() ? static_cast<unsigned char>(text[i]) : 0; };
  for (size_t i = 1; i < text.size(); ++i) {
    const unsigned char before = at(i - 1), here = at(i), after = at(i + 1);
    count += here == '_' && std::isalnum(before) && std::isalnum(after);
    count += std::islower(before) && std::isupper(here);
    count += here == '(' && std::isalnum(before);
    count += here == '.' && std::isalpha(before) && std::islower(after);
    count += (before == '=' && here == '=') || (before == '-' && here == '>') || (before == ':' && here == ':');
  }
  return count;
}

std::string_view LastOfUser(const ChatEvidence& evidence) {
  for (size_t i = evidence.recent_turns.size(); i-- > 0;) {
    if (evidence.recent_turns[i].is_user) return evidence.recent_turns[i].text;
  }
  return {};
}

constexpr const char* kFeatureNames[kNumChatFeatures] = {"what is usual",
                                                         "fenced code",
                                                         "code punctuation",
                                                         "identifiers",
                                                         "shapes of errors",
                                                         "programming words",
                                                         "programming words in the last message",
                                                         "words of stories and verse",
                                                         "words of stories and verse in the last message",
                                                         "a request to write",
                                                         "a request to write a story or verse",
                                                         "words of documents",
                                                         "words of documents in the last message",
                                                         "a request about a text",
                                                         "a long message",
                                                         "the length of the last message",
                                                         "the length of it all",
                                                         "lines",
                                                         "Chinese",
                                                         "questions"};

// Columns: features; rows: classes.
constexpr double kWeights[kNumChatClasses][kNumChatFeatures] = {
#include "policy/chat_class_weights.inc"
};

constexpr double kSmoothing = 0.5, kClearlyMore = 0.15;
constexpr int kTurnsToSwitch = 2;

size_t IndexOfLargest(const std::array<double, kNumChatClasses>& numbers) {
  return size_t(std::ranges::max_element(numbers) - numbers.begin());
}

// The features that spoke most for the class, against the mean of all.
std::string Why(const ChatFeatures& features, size_t best) {
  std::vector<std::pair<double, size_t>> shares;
  for (size_t i = 1; i < features.size(); ++i) {
    double mean = 0;
    for (const auto& of_class : kWeights) mean += of_class[i] / kNumChatClasses;
    shares.emplace_back((kWeights[best][i] - mean) * features[i], i);
  }
  std::ranges::sort(shares, std::greater());
  std::string why;
  for (size_t i = 0; i < 2; ++i) {
    if (shares[i].first > 0.1) why += (why.empty() ? "" : ", ") + std::string(kFeatureNames[shares[i].second]);
  }
  return why.empty() ? "nothing in particular" : why;
}

}  // namespace

const char* ChatClassName(ChatClass chat_class) {
  return kClassNames[size_t(chat_class)];
}

Result<ChatClass> ParseChatClass(std::string_view name) {
  for (const ChatClass chat_class : kAllChatClasses) {
    if (name == ChatClassName(chat_class)) return chat_class;
  }
  return Fail(ErrorCode::kInvalidArgument, "'" + std::string(name) +
                                               "' is no class of conversation; there are short_chat, long_document, "
                                               "code, creative");
}

const char* ChatFeatureName(size_t feature) {
  return kFeatureNames[feature];
}

ChatFeatures FeaturesOf(const ChatEvidence& evidence) {
  std::string all;
  double longest = 0, num_questions = 0, num_user_turns = 0, makes = 0, makes_stories = 0, reads = 0;
  for (const ChatTurn& turn : evidence.recent_turns) {
    all += std::string(turn.text) + "\n";
    if (!turn.is_user) continue;
    longest = std::max(longest, LettersOf(turn.text));
    num_questions += turn.text.contains('?') || turn.text.contains("？") || turn.text.contains("吗");
    ++num_user_turns;
    const std::string lower_turn = Lower(turn.text);
    const double makes_here = Count(lower_turn, kMakingWords, kMakingPhrases);
    makes += makes_here;
    makes_stories += makes_here > 0 && Count(lower_turn, kCreativeWords, kCreativePhrases) > 0;
    reads += Count(lower_turn, kReadingWords, kReadingPhrases);
  }
  const std::string last(LastOfUser(evidence)), lower = Lower(all), lower_last = Lower(last);
  const double letters = std::max(1.0, LettersOf(all));
  const double length = std::max(letters, 4.0 * double(evidence.num_tokens));
  return {1,
          all.contains("```") ? 1.0 : 0.0,
          std::min(2.0, 20 * CodePunctuation(all) / letters),
          std::min(2.0, 30 * Identifiers(all) / letters),
          std::min(2.0, CountPhrases(lower, kErrorShapes)),
          std::log1p(Count(lower, kProgrammingWords, kProgrammingPhrases)),
          std::log1p(Count(lower_last, kProgrammingWords, kProgrammingPhrases)),
          std::log1p(Count(lower, kCreativeWords, kCreativePhrases)),
          std::log1p(Count(lower_last, kCreativeWords, kCreativePhrases)),
          std::min(2.0, makes),
          makes_stories > 0 ? 1.0 : 0.0,
          std::log1p(Count(lower, kDocumentWords, kDocumentPhrases)),
          std::log1p(Count(lower_last, kDocumentWords, kDocumentPhrases)),
          std::log1p(reads),
          std::log1p(longest / 100),
          std::log1p(LettersOf(last) / 100),
          std::log1p(length / 200),
          std::log1p(double(std::ranges::count(all, '\n')) - double(evidence.recent_turns.size())),
          ChineseShare(all),
          num_questions / std::max(1.0, num_user_turns)};
}

ChatClassification ClassifyChat(const ChatEvidence& evidence) {
  const ChatFeatures features = FeaturesOf(evidence);
  ChatClassification result;
  std::array<double, kNumChatClasses> logits{};
  for (size_t c = 0; c < kNumChatClasses; ++c)
    for (size_t i = 0; i < features.size(); ++i) logits[c] += kWeights[c][i] * features[i];
  const double largest = std::ranges::max(logits);
  double sum = 0;
  for (size_t c = 0; c < kNumChatClasses; ++c) sum += result.probabilities[c] = std::exp(logits[c] - largest);
  for (double& probability : result.probabilities) probability /= sum;
  const size_t best = IndexOfLargest(result.probabilities);
  result.best = ChatClass(best);
  result.why = Why(features, best);
  return result;
}

ChatClass ChatClassTracker::Update(const ChatClassification& classification) {
  if (!smoothed_) {
    smoothed_ = classification.probabilities;
    return current_ = classification.best;
  }
  for (size_t c = 0; c < kNumChatClasses; ++c) {
    (*smoothed_)[c] += kSmoothing * (classification.probabilities[c] - (*smoothed_)[c]);
  }
  const size_t best = IndexOfLargest(*smoothed_);
  const bool is_better = (*smoothed_)[best] > (*smoothed_)[size_t(current_)] + kClearlyMore;
  num_turns_better_ = is_better ? num_turns_better_ + 1 : 0;
  if (num_turns_better_ < kTurnsToSwitch) return current_;
  num_turns_better_ = 0;
  return current_ = ChatClass(best);
}

}  // namespace kvist
