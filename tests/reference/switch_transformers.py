"""Values, gradients and routing of T5 and SwitchTransformers in Hugging Face's transformers, for src/model/transformer.

Weights and tokens follow from formulas that the tests repeat, so that the stored numbers are few: of every tensor's gradient its
norm and two projections. Run with transformers 5.24 and PyTorch:

    python tests/reference/switch_transformers.py > tests/reference/switch_transformers.json

With a folder that `parsimony export` wrote, the sequences of a text and a loss in nats per predicted token are compared instead:

    python tests/reference/switch_transformers.py FOLDER tokens.json
"""

import json
import math
import sys

import torch
from transformers import (
    SwitchTransformersConfig,
    SwitchTransformersForConditionalGeneration,
    T5Config,
    T5ForConditionalGeneration,
)
from transformers.models.switch_transformers.modeling_switch_transformers import SwitchTransformersSparseMLP

torch.set_default_dtype(torch.float64)
SYMBOLS, LENGTH = 11, 10
SHAPE = dict(
    vocab_size=SYMBOLS, d_model=12, d_kv=4, d_ff=20, num_layers=2, num_decoder_layers=2, num_heads=3,
    relative_attention_num_buckets=8, relative_attention_max_distance=16, dropout_rate=0.0,
)


def weight(name, shape):
    """The numbers of a tensor from its name."""
    phase = sum(name.encode()) % 97
    i = torch.arange(math.prod(shape), dtype=torch.float64)
    wave = torch.sin(1.7 * i + 0.01 * i * i + phase)
    if "layer_norm" in name:
        values = 1.0 + 0.2 * wave
    elif "router" in name or "shared" in name:
        values = wave
    else:
        values = 0.4 * wave
    return values.reshape(shape).float().double()


def tokens(count, start):
    return torch.tensor([(start + 3 * i + i * i) % SYMBOLS for i in range(count)])


def summary(gradient):
    flat = gradient.double().flatten()
    i = torch.arange(flat.numel(), dtype=torch.float64)
    projections = [torch.cos(0.9 * i + 0.1), torch.sin(0.37 * i * i)]
    return [flat.norm().item()] + [(flat @ p).item() for p in projections]


def gradient(parameter):
    """An expert without tokens has none."""
    return torch.zeros_like(parameter) if parameter.grad is None else parameter.grad


def whole(name, model, sequences, settings, routers):
    parameters = {n: p for n, p in model.named_parameters()}
    with torch.no_grad():
        for n, p in parameters.items():
            p.copy_(weight(n, p.shape))
    model.eval()
    source = torch.stack([tokens(LENGTH, 5 * s) for s in range(sequences)])
    target = torch.stack([tokens(LENGTH + 1, 4 + 2 * s) for s in range(sequences)])
    labels = target[:, 1:].clone()
    labels[:, 3] = -100
    arguments = {"output_router_logits": True} if routers else {}
    out = model(input_ids=source, decoder_input_ids=target[:, :-1], labels=labels, **arguments)
    loss = out.loss
    loss.backward()
    choices = []
    for stack in (model.encoder, model.decoder):
        for block in stack.block:
            mlp = getattr(block.layer[-1], "mlp", None)
            if isinstance(mlp, SwitchTransformersSparseMLP):
                choices.append(mlp.chosen)
    return {
        "name": name,
        "settings": settings,
        "sequences": sequences,
        "loss": loss.item(),
        "logits": out.logits.flatten().tolist(),
        "choices": choices,
        "gradients": {n: summary(gradient(p)) for n, p in parameters.items()},
    }


def recording(model):
    """Keeps the choices of every sparse layer: the expert, or -1 where its capacity was used up."""
    for module in model.modules():
        if isinstance(module, SwitchTransformersSparseMLP):
            def keep(_, __, out, of=module):
                mask = out[0].reshape(-1, out[0].shape[-1])
                of.chosen = [int(row.argmax()) if row.sum() > 0 else -1 for row in mask]
            module.router.register_forward_hook(keep)
    return model


def layer():
    """One sparse layer whose capacity binds: its output, and gradients for the sum of output * wave."""
    capacity, count = 5, 24
    config = SwitchTransformersConfig(**SHAPE, num_experts=4, expert_capacity=capacity, router_jitter_noise=0.0)
    mlp = recording(SwitchTransformersSparseMLP(config)).eval()
    prefix = "decoder.block.1.layer.1.mlp."
    with torch.no_grad():
        for n, p in mlp.named_parameters():
            p.copy_(weight(prefix + n, p.shape))
    i = torch.arange(count * 12, dtype=torch.float64)
    x = torch.sin(0.83 * i + 0.002 * i * i).float().double().reshape(1, count, 12).requires_grad_()
    y = mlp(x)
    (y.flatten() * torch.cos(0.3 * i)).sum().backward()
    return {
        "capacity": capacity,
        "tokens": count,
        "output": y.flatten().tolist(),
        "choices": mlp.chosen,
        "input_gradient": x.grad.flatten().tolist(),
        "gradients": {prefix + n: summary(gradient(p)) for n, p in mlp.named_parameters()},
    }


def main():
    switch = dict(num_experts=4, num_sparse_encoder_layers=1, num_sparse_decoder_layers=1, router_jitter_noise=0.0)
    cases = []
    for name, sequences, capacity, weights, routers in [
        ("switch", 2, 10, (0.0, 0.0), False),
        ("switch, tight, with the routers' losses", 1, 3, (0.05, 0.02), True),
    ]:
        config = SwitchTransformersConfig(
            **SHAPE, **switch, expert_capacity=capacity, router_aux_loss_coef=weights[0], router_z_loss_coef=weights[1]
        )
        model = recording(SwitchTransformersForConditionalGeneration(config))
        settings = {"experts": 4, "capacity": capacity, "auxiliary": weights[0], "z": weights[1]}
        cases.append(whole(name, model, sequences, {**settings, "f": "relu", "tied": True}, routers))
    for name, f, tied in [("t5", "relu", True), ("t5 1.1", "gated-gelu", False)]:
        model = T5ForConditionalGeneration(T5Config(**SHAPE, feed_forward_proj=f, tie_word_embeddings=tied))
        if not tied:
            # This version leaves out the factor of the logits and shares the weights all the same, unless they are loaded.
            model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().clone())
        cases.append(whole(name, model, 2, {"f": f, "tied": tied}, False))
    json.dump({"layer": layer(), "cases": cases}, sys.stdout)


def loaded(folder, path):
    """The loss of an exported model on sequences `{"encoder": [[...]], "decoder": [[...]], "targets": [[...]]}`."""
    kind = json.load(open(f"{folder}/config.json"))["model_type"]
    classes = {"t5": T5ForConditionalGeneration, "switch_transformers": SwitchTransformersForConditionalGeneration}
    model, info = classes[kind].from_pretrained(folder, output_loading_info=True, dtype=torch.float32)
    print("missing:", info["missing_keys"], "unexpected:", info["unexpected_keys"])
    rows = json.load(open(path))
    batch = {key: torch.tensor(rows[key]) for key in ("encoder", "decoder", "targets")}
    model.eval()
    with torch.no_grad():
        out = model(input_ids=batch["encoder"], decoder_input_ids=batch["decoder"], labels=batch["targets"])
    print("loss:", out.loss.item())


if __name__ == "__main__":
    main() if len(sys.argv) == 1 else loaded(*sys.argv[1:])
