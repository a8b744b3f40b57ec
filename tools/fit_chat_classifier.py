#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The Kvist authors
"""Fits the weights of the classifier of conversations: multinomial logistic regression on features computed in C++.

Only the half marked "tune" is read; how strongly weights are held small is chosen by cross-validation within it.
Usage: chat_features --features tests/data/chats/conversations.jsonl | tools/fit_chat_classifier.py
Writes src/policy/chat_class_weights.inc and prints what cross-validation found. Needs numpy.
"""

import json
import pathlib
import sys

import numpy

CLASSES = ["short_chat", "long_document", "code", "creative"]
STRENGTHS = [0.003, 0.006, 0.01, 0.015, 0.02, 0.03, 0.05]  # of the penalty, a chat
NUM_FOLDS = 8
NUM_FOLDINGS = 5
NUM_STEPS = 1000
OUTPUT = pathlib.Path(__file__).resolve().parents[1] / "src/policy/chat_class_weights.inc"
HEADER = """// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
// Made by: chat_features --features tests/data/chats/conversations.jsonl | tools/fit_chat_classifier.py
// A class each, in the order of ChatClass: its bias, and its weights in the order of ChatFeature.
// clang-format off
"""


def read(lines):
    """Features [chat][feature] and labels [chat] of the half that may be looked at."""
    chats = [chat for chat in map(json.loads, lines) if chat["split"] == "tune"]
    if not chats:
        sys.exit("there are no chats to fit to on standard input")
    return numpy.array([c["features"] for c in chats]), numpy.array([CLASSES.index(c["label"]) for c in chats])


def probabilities(features, weights):
    """[chat][class]; the last row of weights is the bias."""
    scores = features @ weights[:-1] + weights[-1]
    scores = numpy.exp(scores - scores.max(axis=1, keepdims=True))
    return scores / scores.sum(axis=1, keepdims=True)


def fit(features, labels, strength):
    """Weights [feature + 1][class], by accelerated gradient descent on features scaled to unit variance."""
    scale = features.std(axis=0) + 1e-3
    scaled = features / scale
    target = numpy.eye(len(CLASSES))[labels]
    weights = numpy.zeros((features.shape[1] + 1, len(CLASSES)))
    ahead = weights.copy()
    design = numpy.hstack([scaled, numpy.ones((len(labels), 1))])
    step = 1 / (numpy.linalg.norm(design, 2) ** 2 / len(labels) / 2 + strength)
    for i in range(NUM_STEPS):
        gradient = design.T @ (probabilities(scaled, ahead) - target) / len(labels)
        gradient[:-1] += strength * ahead[:-1]
        new = ahead - step * gradient
        ahead = new + i / (i + 3) * (new - weights)
        weights = new
    weights[:-1] /= scale[:, None]
    return weights


def cross_validate(features, labels, strength):
    """Of chats that were not fitted to: accuracy, log loss and its standard error, over several ways to fold."""
    right, losses = 0.0, numpy.zeros(len(labels))
    for seed in range(NUM_FOLDINGS):
        fold = numpy.random.default_rng(seed).permutation(len(labels)) % NUM_FOLDS
        guessed = numpy.zeros((len(labels), len(CLASSES)))
        for k in range(NUM_FOLDS):
            weights = fit(features[fold != k], labels[fold != k], strength)
            guessed[fold == k] = probabilities(features[fold == k], weights)
        right += (guessed.argmax(axis=1) == labels).mean() / NUM_FOLDINGS
        losses -= numpy.log(guessed[numpy.arange(len(labels)), labels]) / NUM_FOLDINGS
    return right, losses.mean(), losses.std() / len(labels) ** 0.5


def write(weights):
    with open(OUTPUT, "w", encoding="utf-8") as out:
        out.write(HEADER)
        for k in range(len(CLASSES)):
            numbers = [f"{w:.3f}" for w in weights[:-1, k]]
            rows = [", ".join(numbers[i : i + 9]) for i in range(0, len(numbers), 9)]
            out.write(f"{{{weights[-1, k]:.3f},  // {CLASSES[k]}\n {{" + ",\n  ".join(rows) + "}},\n")


def choose_strength(features, labels):
    """The strongest penalty whose loss is no more than a standard error above the least: what one person wrote differs
    less than what people write, so the smaller weights are the safer ones."""
    found = {}
    for strength in STRENGTHS:
        right, loss, error = found[strength] = cross_validate(features, labels, strength)
        print(f"penalty {strength}: cross-validated accuracy {right:.3f}, log loss {loss:.3f} +- {error:.3f}")
    _, least, error = min(found.values(), key=lambda entry: entry[1])
    return max(strength for strength, (_, loss, _) in found.items() if loss <= least + error)


def main():
    features, labels = read(sys.stdin)
    strength = choose_strength(features, labels)
    weights = fit(features, labels, strength)
    write(weights)
    right = (probabilities(features, weights).argmax(axis=1) == labels).mean()
    print(f"penalty {strength} taken; accuracy on the {len(labels)} chats fitted to {right:.3f}")


if __name__ == "__main__":
    main()
