# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The Kvist authors
"""kvpress on windows of a text, run by kvpress.py with the Python of kvpress's own environment.

Takes one JSON object as its argument: {"model", "text", "context", "continuation", "windows", "threads", "keep",
"presses"}; "keep" is a list of shares, "presses" a list of {"name", "kind", "options", "inner", "attention", "alone"},
of which "inner" is null or the press that it wraps. Prints one JSON object a line as it goes: {"window", "base_loss",
"no_prefix_loss", "prefill_s", "prefill_cpu_s", "kv_bytes"}, then {"window", "press", "keep", "kl", "loss", "same_top",
"held_tokens", "kv_bytes", "evict_s", "evict_cpu_s"} for each case, the press "none" first, or {"press", "error"}.

It does what `kvist eval --retain` does: a window's prefix in one pass, a press that evicts, then the rest of the window
fed as it stands in the text, and each prediction compared with that of the whole cache, in f64. Losses and KL are
means, in nats. A press acts when a layer's attention has been computed and changes nothing of what the layer gives to
the next one. So the pass is made once, and each press is then called with what it would have got in it, layer by layer;
one that is "alone" makes the pass itself.
"""

import contextlib
import copy
import json
import os
import pathlib
import sys
import tempfile
import time

os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_VERBOSITY="error", TOKENIZERS_PARALLELISM="false")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # beside other programs, waiting threads would take their cores
import gguf  # noqa: E402
import kvpress  # noqa: E402
import tokenizers  # noqa: E402
import torch  # noqa: E402
import transformers  # noqa: E402

ATTENTION = "sdpa"  # of everything but a press that asks for another


def fail(text):
    sys.exit(f"error: {text}")


def say(**found):
    print(json.dumps(found), flush=True)


# --- the model and the text ---


def make_tokenizer(path):
    """The tokenizer in a GGUF file, which takes all text for plain text."""
    fields = gguf.GGUFReader(path).fields
    kind, split = (fields[f"tokenizer.ggml.{name}"].contents() for name in ("model", "pre"))
    starts = "tokenizer.ggml.add_bos_token" in fields and fields["tokenizer.ggml.add_bos_token"].contents()
    if (kind, split) != ("gpt2", "smollm") or starts:
        fail(f"this comparison knows SmolLM2's tokenizer only, and the model's is {kind}, {split}")
    token_to_id = {token: i for i, token in enumerate(fields["tokenizer.ggml.tokens"].contents())}
    merges = [tuple(pair.split(" ")) for pair in fields["tokenizer.ggml.merges"].contents()]
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE(token_to_id, merges))
    split = tokenizers.pre_tokenizers
    tokenizer.pre_tokenizer = split.Sequence([split.Digits(individual_digits=True), split.ByteLevel(False)])
    return tokenizer


def windows_of(setting, tokenizer):
    text = pathlib.Path(setting["text"]).read_text(encoding="utf-8")
    tokens = torch.tensor(tokenizer.encode(text).ids)
    length = setting["context"] + setting["continuation"]
    if len(tokens) < length * setting["windows"]:
        fail(f"the text has {len(tokens)} tokens, and {setting['windows']} windows of {length} are asked for")
    return tokens[: length * setting["windows"]].view(-1, 1, length)


def load_model(path, tokenizer, folder):
    """With f32 weights. folder: where presses that ask for a tokenizer find it; without a chat template, since the text
    is none."""
    path = pathlib.Path(path).resolve()
    model = transformers.AutoModelForCausalLM.from_pretrained(
        path.parent, gguf_file=path.name, dtype=torch.float32, attn_implementation=ATTENTION
    )
    transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer).save_pretrained(folder)
    model.config.name_or_path = folder
    return model


def make_press(what, keep):
    if what["inner"]:
        return getattr(kvpress, what["kind"])(make_press(what["inner"], keep), **what["options"])
    return getattr(kvpress, what["kind"])(compression_ratio=1 - keep, **what["options"])


# --- measuring ---


def attentions(model):
    return [layer.self_attn for layer in model.model.layers]


@contextlib.contextmanager
def timed(name, took):
    """Notes the seconds that something takes, of the clock and of all processors."""
    clock, cpu = time.perf_counter(), time.process_time()
    yield
    took[f"{name}_s"] = time.perf_counter() - clock
    took[f"{name}_cpu_s"] = time.process_time() - cpu


@contextlib.contextmanager
def seen_by_hooks(model, inputs):
    """Appends what a hook on each layer's attention is given, but for the cache."""

    def hook(module, arguments, named, output):
        inputs.append({name: value for name, value in named.items() if name != "past_key_values"})

    hooks = [module.register_forward_hook(hook, with_kwargs=True) for module in attentions(model)]
    try:
        yield
    finally:
        for each in hooks:
            each.remove()


def compute_prefix(model, prefix):
    cache = transformers.DynamicCache()
    model.model(input_ids=prefix, past_key_values=cache)
    return cache


def unmask(model):
    for module in attentions(model):
        module.masked_key_indices = None


def num_masked(model):
    """Keys that a press has not removed but masked."""
    masked = [module.masked_key_indices for module in attentions(model)]
    return sum(len(indices[0]) for indices in masked if indices is not None)


def can_take_many(model, cache):
    """Whether several tokens may be fed at once: the causal mask is made for the first layer and used for all, and what
    stands in for a masked key has to be found for all queries of a step."""
    return num_masked(model) == 0 and len({layer.keys.shape[2] for layer in cache.layers}) == 1


def logits_after(model, cache, begin, tokens, step_tokens):
    """Of what follows each token but the last. begin: the first one's position."""
    tokens = tokens[:, :-1]
    positions = torch.arange(begin, begin + tokens.shape[1])[None]
    steps = zip(tokens.split(step_tokens, 1), positions.split(step_tokens, 1))
    return torch.cat(
        [model(input_ids=ids, past_key_values=cache, position_ids=where).logits[0].double() for ids, where in steps]
    ).log_softmax(-1)


def loss_of(logs, tokens):
    return -logs.gather(1, tokens[0, 1:, None]).mean().item()


def held(model, cache):
    """(tokens a lane, bytes)"""
    num_lanes = sum(layer.keys.shape[1] for layer in cache.layers)
    num_tokens = sum(layer.keys.shape[1] * layer.keys.shape[2] for layer in cache.layers) - num_masked(model)
    return num_tokens / num_lanes, sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)


class Window:
    def __init__(self, model, number, tokens, context):
        self.model, self.number, self.context = model, number, context
        self.prefix, self.rest = tokens[:, :context], tokens[:, context:]
        self.took, self.inputs = {}, []
        unmask(model)
        with seen_by_hooks(model, self.inputs), timed("prefill", self.took):
            self.cache = compute_prefix(model, self.prefix)
        self.base = logits_after(model, copy.deepcopy(self.cache), context, self.rest, self.rest.shape[1])
        none = logits_after(model, transformers.DynamicCache(), 0, self.rest, self.rest.shape[1])
        losses = {"base_loss": loss_of(self.base, self.rest), "no_prefix_loss": loss_of(none, self.rest)}
        say(window=number, **losses, kv_bytes=held(model, self.cache)[1], **self.took)

    def press_after(self, press, took):
        """The cache that a press leaves of the one that is there."""
        cache = copy.deepcopy(self.cache)
        with press(self.model), timed("evict", took):
            for module, inputs in zip(attentions(self.model), self.inputs):
                press.forward_hook(module, [], {**inputs, "past_key_values": cache}, [None, None])
        return cache

    def press_alone(self, press, attention, took):
        """The same, where a press has to be there while the prefix is computed."""
        self.model.set_attn_implementation(attention)
        try:
            with timed("evict", took), press(self.model):
                cache = compute_prefix(self.model, self.prefix)
        finally:
            self.model.set_attn_implementation(ATTENTION)
        for name in took:
            took[name] -= self.took[name.replace("evict", "prefill")]
        return cache

    def press(self, what, keep):
        unmask(self.model)
        torch.manual_seed(self.number)  # for a press that throws dice
        press, took = make_press(what, keep), {}
        if what["alone"]:
            cache = self.press_alone(press, what["attention"], took)
        else:
            cache = self.press_after(press, took)
        self.judge(what["name"], keep, cache, can_take_many(self.model, cache), took)

    def judge(self, name, keep, cache, at_once, took):
        held_tokens, kv_bytes = held(self.model, cache)
        logs = logits_after(self.model, cache, self.context, self.rest, self.rest.shape[1] if at_once else 1)
        kl = (self.base.exp() * (self.base - logs)).sum(-1).mean().item()
        same_top = (logs.argmax(-1) == self.base.argmax(-1)).double().mean().item()
        quality = {"kl": kl, "loss": loss_of(logs, self.rest), "same_top": same_top}
        say(window=self.number, press=name, keep=keep, **quality, held_tokens=held_tokens, kv_bytes=kv_bytes, **took)


def measure(setting, model, windows):
    failed = set()
    for number, tokens in enumerate(windows):
        window = Window(model, number, tokens, setting["context"])
        none = {"evict_s": 0.0, "evict_cpu_s": 0.0}
        window.judge("none", 1.0, copy.deepcopy(window.cache), False, none)  # what the size of the steps changes
        for what in setting["presses"]:
            for keep in setting["keep"]:
                if what["name"] in failed:
                    continue
                try:
                    window.press(what, keep)
                except Exception as error:  # a press that does not work with this model is a result, too
                    failed.add(what["name"])
                    say(press=what["name"], error=f"{type(error).__name__}: {error}")


def main():
    setting = json.loads(sys.argv[1])
    transformers.utils.logging.disable_progress_bar()
    torch.set_grad_enabled(False)
    torch.set_num_threads(setting["threads"])
    tokenizer = make_tokenizer(setting["model"])
    windows = windows_of(setting, tokenizer)
    with tempfile.TemporaryDirectory() as folder:
        model = load_model(setting["model"], tokenizer, folder)
        compute_prefix(model, windows[0][:, :256])  # makes threads and memory ready
        measure(setting, model, windows)


if __name__ == "__main__":
    main()
