# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The Kvist authors
"""One round of LMCache's stores, run by lmcache.py with the Python of LMCache's own environment.

Takes one JSON object as its argument: {"chunks", "folder", "redis_port"}. Prints one JSON object a line:
{"path", "bytes", "store_gb_per_s", "load_gb_per_s"}. LMCache's StorageManager is used without an engine. Only the way
between memory and the store counts: chunks lie in LMCache's memory before, and are in LMCache's memory again after. For
memory itself they are copied in and out, as an engine does; there is no other work.
"""

import hashlib
import json
import os
import sys
import threading
import time

# Of LMCache and the libraries below it: nothing is sent, nothing is logged on stdout.
os.environ.update(LMCACHE_TRACK_USAGE="false", LMCACHE_LOG_LEVEL="ERROR", PYTHONHASHSEED="0")
import torch  # noqa: E402
from lmcache.utils import CacheEngineKey  # noqa: E402
from lmcache.v1.config import LMCacheEngineConfig  # noqa: E402
from lmcache.v1.event_manager import EventManager  # noqa: E402
from lmcache.v1.memory_management import MemoryFormat  # noqa: E402
from lmcache.v1.metadata import LMCacheMetadata  # noqa: E402
from lmcache.v1.storage_backend.storage_manager import StorageManager  # noqa: E402

LAYERS, CHUNK_TOKENS, KV_HEADS, HEAD_DIM = 30, 256, 3, 64  # SmolLM2's
SHAPE = torch.Size([2, LAYERS, CHUNK_TOKENS, KV_HEADS * HEAD_DIM])
CHUNK_BYTES = SHAPE.numel() * 2  # f16
MAX_WAIT_S = 60


def paths_of(setting):
    """{path: (LMCache's name of the backend, its options)}"""
    port = setting["redis_port"]
    return {
        "memory": ("LocalCPUBackend", {"local_cpu": True}),
        "disk": ("LocalDiskBackend", {"local_disk": setting["folder"] + "/", "max_local_disk_size": 4.0}),
        "redis": ("RemoteBackend", {"remote_url": f"redis://127.0.0.1:{port}"}),
        "redis, native client": ("RemoteBackend", {"remote_url": f"resp://127.0.0.1:{port}"}),
    }


def open_manager(options, num_chunks):
    room_gb = 3 * num_chunks * CHUNK_BYTES / 2**30 + 0.25  # what is stored, what is loaded, and some
    config = LMCacheEngineConfig.from_defaults(
        **{"chunk_size": CHUNK_TOKENS, "local_cpu": False, "max_local_cpu_size": room_gb, **options},
        remote_serde="naive",
        save_unfull_chunk=False,
        extra_config={"save_chunk_meta": False},
    )
    config.validate()
    shape = (LAYERS, 2, CHUNK_TOKENS, KV_HEADS, HEAD_DIM)
    metadata = LMCacheMetadata("kvist-peers", 1, 1, 0, 0, torch.float16, shape, chunk_size=CHUNK_TOKENS)
    return StorageManager(config=config, metadata=metadata, event_manager=EventManager())


def new_keys(num_chunks):
    """Of chunks that nobody has stored."""
    seed = os.urandom(16).hex()
    hashes = [hashlib.sha256(f"{seed} {i}".encode()).digest()[:8] for i in range(num_chunks)]
    return [CacheEngineKey("kvist-peers", 1, 0, int.from_bytes(digest), torch.float16) for digest in hashes]


def fail(text):
    print(f"error: {text}", file=sys.stderr, flush=True)
    os._exit(1)  # LMCache's threads would not end


def store(backend, keys, objects):
    """Until the store has them."""
    stored = threading.Semaphore(0)
    backend.batched_submit_put_task(keys, objects, on_complete_callback=lambda _: stored.release())
    for _ in keys:
        if not stored.acquire(timeout=MAX_WAIT_S):
            fail(f"LMCache did not store {len(keys)} chunks in {MAX_WAIT_S} s")


def measure(path, backend_name, manager, num_chunks):
    chunks = [torch.rand(SHAPE, dtype=torch.float32).to(torch.float16) for _ in range(num_chunks)]
    in_memory = path == "memory"
    for _ in range(2):  # the first makes memory, threads and connections ready
        keys = new_keys(num_chunks)
        started = time.perf_counter()
        objects = manager.batched_allocate(SHAPE, torch.float16, num_chunks, fmt=MemoryFormat.KV_2LTD)
        for stored, chunk in zip(objects, chunks):
            stored.tensor.copy_(chunk)
        backend = manager.storage_backends[backend_name]
        if not in_memory:
            started = time.perf_counter()
        store(backend, keys, objects)
        store_s = time.perf_counter() - started
        out = torch.zeros(SHAPE, dtype=torch.float16)
        started = time.perf_counter()
        loaded = manager.batched_get(keys, location=backend_name)
        if in_memory:
            for one in loaded:
                out.copy_(one.tensor)
        load_s = time.perf_counter() - started
        for one, chunk in zip(loaded, chunks):
            if one is None or not torch.equal(one.tensor.view(SHAPE), chunk):
                fail(f"LMCache did not give back from {path} what it was given")
            one.ref_count_down()
        if backend_name != "RemoteBackend":  # which can't
            manager.batched_remove(keys)
    num_bytes = num_chunks * CHUNK_BYTES
    return {
        "path": path,
        "bytes": num_bytes,
        "store_gb_per_s": num_bytes / 1e9 / store_s,
        "load_gb_per_s": num_bytes / 1e9 / load_s,
    }


def main():
    setting = json.loads(sys.argv[1])
    torch.set_num_threads(1)  # more only wait for each other, copying
    for path, (backend_name, options) in paths_of(setting).items():
        manager = open_manager(options, setting["chunks"])
        print(json.dumps(measure(path, backend_name, manager, setting["chunks"])), flush=True)
    os._exit(0)  # as in fail; closing an idle RemoteBackend waits for ever


if __name__ == "__main__":
    main()
