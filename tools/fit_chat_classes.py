#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The Kvist authors
"""Fits the weights of src/policy/chat_class.cc to the conversations that are there to tune on.

    cmake --build build/release --target chat_features
    .venv/bin/python tools/fit_chat_classes.py build/release/chat_features tests/data/chats/conversations.jsonl

writes src/policy/chat_class_weights.inc, and prints how often it is right: by cross-validation within the half that it
is fitted to, which is what features and the penalty may be chosen by, and on the other half, which is not looked at
before. Multinomial logistic regression, squared penalty, plain gradient descent. Needs numpy.
"""

import json
import pathlib
import subprocess
import sys

import numpy

CLASSES = ["short_chat", "long_document", "code", "creative"]
PENALTY = 0.01
FOLDS = 7


def probabilities(weights, features):
    logits = features @ weights.T
    exponentials = numpy.exp(logits - logits.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)


def fit(features, labels):
    weights = numpy.zeros((len(CLASSES), features.shape[1]))
    wanted = numpy.eye(len(CLASSES))[labels]
    penalised = numpy.ones(features.shape[1])
    penalised[0] = 0  # what is usual
    for _ in range(6000):
        gradient = (probabilities(weights, features) - wanted).T @ features / len(labels)
        weights -= 0.3 * (gradient + PENALTY * weights * penalised)
    return weights


def share_right(weights, features, labels):
    return float((probabilities(weights, features).argmax(axis=1) == labels).mean())


def main():
    program, path = sys.argv[1:]
    lines = pathlib.Path(path).read_text(encoding="utf-8").splitlines()
    chats = [json.loads(line) for line in lines]
    output = subprocess.run([program], input="\n".join(lines) + "\n", capture_output=True, text=True, check=True).stdout
    features = numpy.array([json.loads(line) for line in output.splitlines()])
    labels = numpy.array([CLASSES.index(chat["label"]) for chat in chats])
    tune = numpy.array([chat["split"] == "tune" for chat in chats])

    folds = numpy.arange(tune.sum()) % FOLDS
    of_folds = []
    for fold in range(FOLDS):
        others, here = features[tune][folds != fold], features[tune][folds == fold]
        of_folds.append(share_right(fit(others, labels[tune][folds != fold]), here, labels[tune][folds == fold]))
    print(f"cross-validated, of those tuned on: {numpy.mean(of_folds):.3f}")

    weights = fit(features[tune], labels[tune])
    print(f"tuned on: {share_right(weights, features[tune], labels[tune]):.3f}")
    print(f"held out: {share_right(weights, features[~tune], labels[~tune]):.3f}")
    rows = ["{" + ", ".join(f"{weight:.4f}" for weight in row) + "},\n" for row in weights]
    target = pathlib.Path(__file__).resolve().parent.parent / "src/policy/chat_class_weights.inc"
    target.write_text("// By tools/fit_chat_classes.py.\n" + "".join(rows), encoding="utf-8")


if __name__ == "__main__":
    main()
