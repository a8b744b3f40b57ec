# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The Kvist authors
"""The words of a report in its languages. What has no translation here is shown as it stands in the results."""

LANGUAGES = ("en", "zh")

_WORDS = {  # key: (English, Chinese)
    # Page and figures.
    "title growth": ("Kvist: how caches grow", "Kvist：缓存如何增长"),
    "title eval": ("Kvist: what compression loses", "Kvist：压缩的损失"),
    "title both": ("Kvist: measured results", "Kvist：测量结果"),
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
    # Sections of quality.
    "eval forms": ("What the forms of keys and values lose", "各种键值存储格式的损失"),
    "eval retention": ("What giving up tokens loses", "丢弃 token 的损失"),
    "eval recall": ("Recall after eviction", "驱逐后的召回"),
    "eval pages": ("What reading selected pages loses", "只读所选页的损失"),
    "eval streams": ("Streams without end", "无限长的流"),
    "of case policy": ("Policy", "策略"),
    "of case form": ("Form", "格式"),
    "of case keep": ("Kept", "保留"),
    "of case pages": ("Tokens read", "读取的 token"),
    "of case stream": ("Stream", "流"),
    "of case part": ("Part", "段"),
    "by part": ("Perplexity by part of the text", "文本各段的困惑度"),
    "full cache": ("full cache", "完整缓存"),
    "all": ("all", "全部"),
    "test passkey": ("pass keys", "密钥"),
    "test copy": ("passages to copy", "待复述段落"),
    "of context": ("{} tokens of context", "上下文 {} 个 token"),
    "asked": ("{} asked", "共问 {} 次"),
    "without context": ("ln p without the context {}", "无上下文时 ln p 为 {}"),
    "on the front": (
        "on the Pareto front: nothing else here takes fewer bytes and loses less (standard errors not considered).",
        "位于帕累托前沿：表中没有占用更少且损失更小的（未考虑标准误差）。",
    ),
    "no point": (
        "Rows without bytes or without KL are not in the figure.",
        "没有字节数或 KL 的行不在图中。",
    ),
    "pages held": (
        "Where selected pages are read nothing is given up: what is held is what the full cache holds.",
        "只读所选页时没有丢弃任何内容：保存的与完整缓存相同。",
    ),
    "of pages": (
        "KL is from reading everything in the same form. Nothing is given up: what is held is the same in every row.",
        "KL 相对于同一格式下读取全部内容。没有丢弃任何内容：每行保存的内容相同。",
    ),
    # Figures of quality.
    "quality against bytes": ("Quality against bytes", "质量与字节数"),
    "closer": ("Closer: where tokens are given up", "放大：丢弃 token 的部分"),
    "everything": ("Everything", "全部"),
    "axis bytes": ("keys and values, MiB (log scale)", "键值，MiB（对数刻度）"),
    "axis share": ("share of the full cache's bytes in f16", "占 f16 完整缓存字节数的比例"),
    "axis kl": ("mean KL divergence from f32, nats (log scale)", "与 f32 的平均 KL 散度，nat（对数刻度）"),
    "axis pages": ("tokens read in each step (log scale)", "每步读取的 token（对数刻度）"),
    "axis pages kl": ("mean KL from reading all, nats (log scale)", "与全部读取的平均 KL，nat（对数刻度）"),
    "pages read": ("selected pages: share read", "所选页：读取的比例"),
    "axis kept": ("share of tokens kept (log scale)", "保留的 token 比例（对数刻度）"),
    "axis right": ("share of tokens right", "正确 token 的比例"),
    "axis part": ("part of the text, of {}", "文本的段，共 {} 段"),
    "axis perplexity": ("perplexity (log scale)", "困惑度（对数刻度）"),
    "legend policies": ("Policy", "策略"),
    "legend shapes": ("Budget shape", "预算分配"),
    "legend forms": ("Form", "格式"),
    "forms alone": ("full cache: the form alone", "完整缓存：仅格式"),
    "front": ("Pareto front", "帕累托前沿"),
    "joined": (
        "A line joins a method's points that none of its own beats. Bars: standard error.",
        "连线为同一方法中未被自身其他点超越的点。误差线：标准误差。",
    ),
    "at the edge": (
        "At the lower edge, marked 0: a KL of zero, or next to it, which a log scale can't show.",
        "下边缘标 0：KL 为零或接近零，对数刻度无法显示。",
    ),
    # Settings of a run.
    "setting impl": ("Implementation", "实现"),
    "setting model": ("Model", "模型"),
    "setting text": ("Text", "文本"),
    "setting weights": ("Weights", "权重"),
    "setting context": ("Context, tokens", "上下文 token"),
    "setting continuation": ("Continuation, tokens", "续写 token"),
    "setting windows": ("Windows", "窗口数"),
    "setting threads": ("Threads", "线程数"),
    "setting regime": ("Quantised", "量化时机"),
    "setting recent_tokens": ("Recent tokens", "近期 token"),
    "setting sink_tokens": ("Sink tokens", "起始 token"),
    "setting retain_recent_tokens": ("Kept in any case, last tokens", "总是保留的近期 token"),
    "setting retain_sink_tokens": ("Kept in any case, first tokens", "总是保留的起始 token"),
    "setting tokens": ("Tokens", "token 数"),
    "setting parts": ("Parts", "段数"),
    # Metrics of quality.
    "measure held_tokens": ("Held", "保存"),
    "measure read_tokens": ("Read", "读取"),
    "measure kv_bytes": ("Keys and values", "键值"),
    "measure share_of_f16": ("… of f16's", "… 占 f16"),
    "measure bits": ("A number, sealed", "每个数（封存）"),
    "measure total_bits": ("… in all", "… 总计"),
    "measure kl_mean": ("Mean KL", "平均 KL"),
    "measure kl_se": ("… ±", "… ±"),
    "measure kl_median": ("… median", "… 中位数"),
    "measure kl_p99": ("… 99 % below", "… 99 % 低于"),
    "measure kl_max": ("… largest", "… 最大"),
    "measure same_top": ("Same top token", "首选相同"),
    "measure perplexity": ("Perplexity", "困惑度"),
    "measure base_perplexity": ("Perplexity in f32", "f32 的困惑度"),
    "measure no_prefix_perplexity": ("Perplexity without the prefix", "无前文的困惑度"),
    "measure ln_perplexity_difference": ("ln perplexity less f32's", "ln 困惑度与 f32 之差"),
    "measure ln_perplexity_difference_se": ("… ±", "… ±"),
    "measure recovered": ("Recovered", "挽回"),
    "measure found": ("All right", "全对"),
    "measure tokens_right": ("Tokens right", "正确 token"),
    "measure ln_probability": ("ln p of a token", "每个 token 的 ln p"),
    "measure no_context_ln_probability": ("… without the context", "… 无上下文"),
    "measure slides": ("Slides", "滑动次数"),
    "measure recomputed_tokens": ("Computed anew", "重新计算"),
    "measure peak_kv_bytes": ("Peak", "峰值"),
    "measure tokens_per_s": ("Speed", "速度"),
    "measure tokens": ("Predictions compared", "比较的预测数"),
    "measure evict_s": ("Evicted in", "驱逐用时"),
    "measure prefill_s": ("Prefix computed in", "前文计算用时"),
    "measure observed_prefill_s": ("… while attention is noted", "… 同时记录注意力"),
    "measure repetition_s": ("Second pass", "第二遍用时"),
    # Units.
    "unit s": ("s", "秒"),
    "unit bits": ("bits", "位"),
    "unit nats": ("nats", "nat"),
    "unit tokens/s": ("tokens/s", "个/秒"),
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
