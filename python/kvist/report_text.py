# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The Kvist authors
"""The words of a report in its languages. What has no translation here is shown as it stands in the results."""

LANGUAGES = ("en", "zh")

_WORDS = {  # key: (English, Chinese)
    # Page and figures.
    "title": ("Kvist: how caches grow", "Kvist：缓存如何增长"),
    "colon": (": ", "："),
    "comma": (", ", "，"),
    "cpu": ("CPU", "CPU"),
    "isa": ("Instruction set", "指令集"),
    "commit": ("Commit", "提交"),
    "geometry": ("Geometry", "几何结构"),
    "geometry article": ("article (one layer, 32 heads of 128)", "原文（1 层，32 头 × 128）"),
    "contestant": ("Cache", "缓存"),
    "ran full": (
        "Hatched, marked ×: ran full, so part of the tokens was refused",
        "斜线并标 ×：容量已满，部分 token 被拒绝",
    ),
    "ran full in tables": (
        "× ran full: the length at which tokens were refused is in the column “Full at”.",
        "× 容量已满：“满于”一列是被拒绝时的长度。",
    ),
    "dropped tokens": ("*: dropped part of the tokens by design", "*：按其设计丢弃了部分 token"),
    "nothing there": ("0: the value is zero, so there is no bar", "0：值为零，因此没有柱形"),
    "log scale": ("log scale", "对数刻度"),
    "detail requests": ("requests", "请求数"),
    "detail slots": ("alive at once", "同时存活"),
    # Tables of the article.
    "table static": ("Static analysis", "静态分析"),
    "table dynamic": ("Dynamic", "动态"),
    "table predictive": ("Predictive", "预测"),
    "table comprehensive": ("Comprehensive", "综合对比"),
    "table append": ("Append", "追加"),
    "table trace": ("Recorded load", "真实负载"),
    # Scenarios.
    "scenario short chat": ("short chat", "短对话"),
    "scenario long document": ("long document", "长文档"),
    "scenario long document QA": ("long document QA", "长文档问答"),
    "scenario streaming": ("streaming", "流式生成"),
    "scenario mixed": ("mixed", "混合"),
    "scenario steady": ("steady", "平稳"),
    "scenario burst": ("burst", "突发"),
    "scenario periodic": ("periodic", "周期"),
    "scenario random": ("random", "随机"),
    "scenario one by one": ("one by one", "逐个 token"),
    # Caches.
    "impl article-static": ("article static", "原文 静态"),
    "impl article-dynamic": ("article dynamic", "原文 动态"),
    "impl copy-and-grow": ("copy and grow, once", "单次复制扩容"),
    "impl article-predictive": ("article predictive", "原文 预测"),
    "impl article-hierarchical": ("article hierarchical", "原文 分层"),
    "impl article-compressed": ("article compressed", "原文 压缩"),
    "kind exact": ("exact", "精确"),
    "kind static": ("static", "静态"),
    "kind dynamic": ("dynamic", "动态"),
    "kind predictive": ("predictive", "预测"),
    "kind learned": ("learned", "学习"),
    # Metrics: the title of a panel.
    "panel peak_bytes": ("Memory used, at its peak", "内存使用（峰值）"),
    "panel peak_utilisation": ("Peak utilisation", "峰值利用率"),
    "panel utilisation": ("Mean utilisation", "平均利用率"),
    "panel resizes": ("Resizes", "扩容次数"),
    "panel efficiency": ("Efficiency score", "综合效率评分"),
    "panel append_max_ms": ("Worst append", "最慢的一次追加"),
    "panel copied_bytes": ("Bytes copied by growing", "扩容复制的字节数"),
    "panel total_ms": ("Total time of all appends", "全部追加的总时间"),
    # Metrics: the heading of a column.
    "column tokens": ("Tokens held", "保存的 token"),
    "column refused_at": ("Full at", "满于"),
    "column live_bytes": ("Live", "有效"),
    "column committed_bytes": ("Committed", "已提交"),
    "column peak_bytes": ("Peak", "峰值"),
    "column cumulative_bytes": ("All ever", "累计"),
    "column copied_bytes": ("Copied", "复制"),
    "column resizes": ("Resizes", "扩容次数"),
    "column stalls": ("Stalls", "停顿次数"),
    "column utilisation": ("Utilisation", "利用率"),
    "column peak_utilisation": ("… peak", "… 峰值"),
    "column least_utilisation": ("… least", "… 最低"),
    "column efficiency": ("Efficiency", "效率评分"),
    "column total_ms": ("Total", "总时间"),
    "column append_max_ms": ("Worst append", "最慢追加"),
    "column append_p999_ms": ("99.9 % of appends", "99.9 % 的追加"),
    "column mean_growth": ("Mean growth", "平均增长率"),
    "column stability": ("Stability", "稳定性"),
    # Units.
    "unit MiB": ("MiB", "MiB"),
    "unit ms": ("ms", "毫秒"),
    "unit %": ("%", "%"),
    "unit times": ("times", "次"),
    "unit tokens": ("tokens", "个"),
    "unit score": ("peak utilisation per GB of peak memory", "峰值利用率 ÷ 峰值内存（GB）"),
    "unit ratio": ("", ""),
}


class Words:
    """The words of one language."""

    def __init__(self, language):
        self.language = language
        self._column = LANGUAGES.index(language)

    def __call__(self, key):
        return _WORDS[key][self._column]

    def name(self, kind, name):
        """The name of a table, scenario, geometry or metric: translated where it is known."""
        return self(f"{kind} {name}") if f"{kind} {name}" in _WORDS else name

    def text(self):
        """All of them."""
        return "".join(texts[self._column] for texts in _WORDS.values())
