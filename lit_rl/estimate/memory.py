"""Bytes that a run takes on one device, by formulae, each with its reason.

A run holds its models throughout, and goes through phases that each take memory besides. The peak is what is held
plus the largest phase. Notation as in :mod:`lit_rl.estimate.run`.
"""

from math import ceil
from typing import Literal

from lit_rl.algorithms.per_group import MOST_NUMBERS
from lit_rl.estimate.run import MicroBatch, Run, chances, microbatch, trained_rows
from lit_rl.policy.pieces import tokens_at_once
from lit_rl.sampling.cache import room_of

Strategy = Literal["one", "ddp", "fsdp2"]
Parts = dict[str, float]  # bytes by name
FLOAT, HALF, PAGE = 4, 2, 4096  # bytes
# On a CPU glibc keeps freed blocks of up to 32 MiB, apart for each thread; the backward pass has a thread of its own.
# A phase therefore takes more than it holds, and a part of what another one has freed is still there. Both constants
# are fitted to runs (docs/estimate.md).
SCATTERED, KEPT = 1.28, 0.42
WEIGHTS, CASTS, LOGITS, ACTIVATIONS = "whole weights", "16-bit copies of weights", "logits", "activations"
ENGINE = "vLLM's engine"


def held(run: Run, strategy: Strategy, ranks: int) -> Parts:
    """What is kept throughout, once the first step is taken.

    - FSDP2 gives each device its share of all models and states (:mod:`lit_rl.policy.sharding`).
    - DDP copies gradients into buckets of the same size (PyTorch: ``gradient_as_bucket_view`` would save them).
    - Lightning frees gradients behind the next forward pass, so that they are there in all phases.
    - vLLM's engine, unless it sleeps between calls, as it does by default on a GPU.
    """
    share = ranks if strategy == "fsdp2" else 1
    return {
        "weights": run.weights / share,
        "gradients": run.trained / share,
        "buckets of gradients": run.trained if strategy == "ddp" else 0.0,
        "optimizer": run.optimizer / share,
        "critic": run.critic / share,
        "reference, frozen": run.frozen / share,
        ENGINE: run.engine.size if run.engine is not None and run.engine.stays else 0.0,
    }


def phases(run: Run, strategy: Strategy, ranks: int) -> dict[str, Parts]:
    """What each phase of an iteration takes besides what is held."""
    sharded, batch = strategy == "fsdp2", microbatch(run, ranks)
    casts = float(HALF * run.model.linear * run.autocast)  # autocast keeps those of weights that are trained
    whole = run.weights if sharded else 0.0
    found = {
        "sampling": {WEIGHTS: whole, CASTS: casts * bool(run.batch_rows), **sampling(run, ranks)},
        "preparing": {
            WEIGHTS: float(run.weights + run.critic + run.frozen) if sharded else 0.0,
            CASTS: casts,
            ACTIVATIONS: passing(run, batch.tokens),
            # the logits, their exponentials and, for the entropy, a part of the probabilities
            LOGITS: 2.0 * FLOAT * tokens_in_memory(run, batch, sharded) * run.model.vocabulary,
        },
        "gradient noise": {WEIGHTS: whole, CASTS: casts, **noise(run, ranks)} if run.noise else {},
        "training": {
            # embeddings and head, the block at work, the next one and the gradient of one
            WEIGHTS: run.weights - (run.model.layers - 3.0) * run.model.block if sharded else 0.0,
            CASTS: casts,
            ACTIVATIONS: (2 if run.own_trunk else 1) * activations(run, batch),
            LOGITS: backward(run, batch, sharded),
        },
        # AdamW's denominators: of all parameters at once on a GPU (foreach), elsewhere of one, twice
        "optimizer step": {
            "denominators": run.trained / (ranks if sharded else 1)
            if run.gpu
            else 2.0 * run.model.largest * run.model.element
        },
    }
    return {name: parts for name, parts in found.items() if any(parts.values())}


def sampling(run: Run, ranks: int) -> Parts:
    """Caches of keys and values, and logits of the rows that are decoded together; or a pass over their prompts.

    A step holds logits, probabilities and their sums (:func:`lit_rl.sampling.decoding.choose`); on a GPU the graph of a
    step has logits and probabilities of its own. Continuations start from the samples' caches, which stay; their own
    take up to as many rows.
    """
    plan, model = run.plan, run.model
    if run.engine is not None and not run.engine.stays:
        return {ENGINE: run.engine.size}
    if not run.batch_rows or (plan.demonstrations and not run.evaluated):
        return {}
    at_once = max(1, run.batch_rows // plan.rows)
    prompts = min(at_once, run.prompts / ranks) if not plan.demonstrations else 0
    evaluated = min(max(1, run.batch_rows // 2), run.evaluated / ranks)
    rows = max(prompts * plan.rows, 2 * evaluated)
    slots = run.longest + run.length - 1
    caches = rows * cached(run, run.longest, slots)
    cuts = [t for t, chance in enumerate(chances(plan)[0]) if chance]
    if cuts:
        forked = min(run.batch_rows, prompts * plan.samples * plan.continuations * sum(chances(plan)[0]))
        caches = prompts * plan.rows * cached(run, run.longest, slots)
        caches += forked * max(cached(run, run.longest + t + 1, slots) for t in (cuts[0], cuts[-1]))
        rows = max(rows, forked)
    decoding = {
        f"caches of up to {run.batch_rows} rows": caches,
        LOGITS: (3.0 + 2 * run.gpu) * FLOAT * rows * model.vocabulary,
    }
    read = max(prompts, evaluated) * run.longest
    reading = {"caches of prompts": read * _slot(run), ACTIVATIONS: passing(run, read)}
    return max((decoding, reading), key=lambda parts: sum(parts.values()))


def cached(run: Run, start: float, slots: float) -> float:
    """Bytes of a row's cache that begins with ``start`` slots and ends with ``slots``.

    It has room for a quarter more slots than were needed when it grew last, and a layer grows while its old room is
    still there. On a CPU, room that was never written takes no memory, but for the rest of a page of each head.
    """
    room: float = room_of(ceil(start) + 1)
    before = 0.0
    while room < slots:
        room, before = room_of(int(room) + 1), room
    if not run.gpu:
        page = PAGE / 2 * run.model.heads / (run.model.queries * run.number)
        room, before = min(room, slots + page), min(before, slots)
    return (room + before / run.model.layers) * _slot(run)


def _slot(run: Run) -> float:
    """Bytes of a token's keys and values in all layers."""
    return 2.0 * run.model.layers * run.model.keys * run.number


def passing(run: Run, tokens: float) -> float:
    """A forward pass without gradients: the gate, the other half and their product, and three hidden states."""
    return tokens * 3 * (run.model.inner + run.model.hidden) * run.number


def tokens_in_memory(run: Run, batch: MicroBatch, sharded: bool) -> float:
    """The tokens of a micro-batch whose logits are there at once (:mod:`lit_rl.policy.pieces`)."""
    tokens = batch.rows * run.length
    return tokens if sharded else tokens / ceil(tokens / tokens_at_once(run.model.vocabulary))


def activations(run: Run, batch: MicroBatch) -> float:
    """What autograd saves of a forward pass (as 2205.05198 counts, for layers with RMSNorm and SwiGLU)."""
    model, c = run.model, run.number
    layer = batch.tokens * layer_of_token(run) + attention(run, batch)
    ends = batch.tokens * model.hidden * (FLOAT + 2 * model.element) + batch.rows * batch.own * model.hidden * c
    masks = batch.seen * batch.own * (1 + model.element)  # bool, and the bias that is added to scores
    if run.checkpointing:  # the input of each layer, and one layer again
        return model.layers * batch.tokens * model.hidden * model.element + layer + ends + masks
    return model.layers * layer + ends + masks


def layer_of_token(run: Run) -> float:
    """Bytes that a layer saves of a token, attention left out.

    - Two norms: the input in float32, and what the weight multiplies.
    - Five projections read their input: once for all, but cast for each of them by autocast. The sixth reads A numbers.
    - The feed-forward part: the gate, its activation, the other half, and their product.
    """
    model = run.model
    norms = 2 * model.hidden * (FLOAT + model.element)
    inputs = (5 if run.autocast else 2) * model.hidden + model.queries
    return norms + (inputs + 4 * model.inner) * run.number


def attention(run: Run, batch: MicroBatch) -> float:
    """Bytes that a layer's attention saves: queries, outputs, keys and values where rows see them, and log-sum-exps.

    With a mask, keys are copied for all heads that share them (transformers' sdpa). Autocast copies the mask.
    """
    model = run.model
    seen = batch.seen * model.queries + (batch.prompts * batch.longest * model.keys if batch.shared else 0)
    numbers = 2 * batch.tokens * model.queries + 2 * seen + (batch.seen * batch.own if run.autocast else 0)
    return numbers * run.number + FLOAT * batch.tokens * model.heads


def backward(run: Run, batch: MicroBatch, sharded: bool) -> float:
    """The most that the beginning of a backward pass takes besides activations.

    - Logits, their exponentials and two gradients in float32; of pieces, that of the head is kept meanwhile.
    - Then the gradient of the logits and that of the head, of pieces the sum as well.
    - Then gradients within the last layer. A head that is the embedding has its gradient kept until the end.
    """
    model, tokens = run.model, tokens_in_memory(run, batch, sharded)
    logits, head = FLOAT * tokens * model.vocabulary, model.head * model.element
    pieces = tokens < batch.rows * run.length
    layer = batch.tokens * (2 * model.inner + model.hidden) * run.number
    return max(4 * logits + head * pieces, logits + head * (1 + pieces), layer + head * model.tied)


def noise(run: Run, ranks: int) -> Parts:
    """The gradients of groups (:mod:`lit_rl.algorithms.gradients`).

    Of many groups at once: a vector of the policy's size, and gradients of the largest parameter for all of them,
    twice. What layers put out is recorded, and their gradients take the place of what the backward pass frees. One by
    one: three vectors, and a pass over a group.
    """
    model, group = run.model, ceil(trained_rows(run.plan))
    logits = group * run.length * model.vocabulary
    once = min(MOST_NUMBERS // max(logits, model.largest), run.rows // group, run.prompts // ranks)
    own = run.length - 1.0
    if once < 2:
        batch = MicroBatch(min(run.rows, group), 1, run.prompt, run.longest, own, model.trees)
        passes = {ACTIVATIONS: activations(run, batch), LOGITS: backward(run, batch, False)}
        return {"vectors of gradients": 3.0 * run.trained, **passes}
    batch = MicroBatch(once * group, once, run.prompt, run.longest, own, model.trees)
    return {
        "vectors of gradients": run.trained + 2.0 * once * model.largest * model.element,
        ACTIVATIONS: activations(run, batch) + recorded(run, batch),
        LOGITS: 4.0 * FLOAT * batch.tokens * model.vocabulary,
    }


def recorded(run: Run, batch: MicroBatch) -> float:
    """Bytes of what layers put out and autograd does not save: queries, keys, values, and what both halves of a layer
    add to the hidden states."""
    model = run.model
    return model.layers * batch.tokens * (model.queries + 2 * model.keys + 2 * model.hidden) * run.number


def total(run: Run, strategy: Strategy, ranks: int) -> float:
    """Bytes at the peak: what is held plus the largest phase. On a CPU the phase counts ``SCATTERED`` times, and
    ``KEPT`` of the second largest is added.
    """
    kept = sum(held(run, strategy, ranks).values())
    sizes = sorted((sum(parts.values()) for parts in phases(run, strategy, ranks).values()), reverse=True)
    return kept + (sizes[0] if run.gpu else SCATTERED * sizes[0] + KEPT * sum(sizes[1:2]))
