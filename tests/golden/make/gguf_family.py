#!/usr/bin/env python3
"""Converts a fixture of tests/golden/fixtures to GGUF with llama.cpp's own converter, in bf16.

    gguf_family.py LLAMA.CPP FIXTURE OUT.gguf

LLAMA.CPP is a source tree of llama.cpp. Needs torch, transformers, safetensors and numpy.

The converter's way of writing tensors and metadata is left as it is. What is changed is what a fixture cannot have:

- its tokenizer is none that was published: the vocabulary goes as it is, under the rule `gpt-2`;
- Gemma 4: rows of the embedding beyond the tokenizer stay;
- MiMo-V2-Flash: the config gets the keys that the published one has besides those of transformers;
- Granite 4.0 H: the published models do without a rotary embedding, which the converter takes for granted; the fixture has one, and the key
  that says so is set to true afterwards.
"""

import json
import shutil
import sys
import tempfile
from pathlib import Path

llama_cpp, fixture, out = Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3])
sys.path[:0] = [str(llama_cpp), str(llama_cpp / "gguf-py")]

import conversion.gemma as gemma  # noqa: E402
import convert_hf_to_gguf as converter  # noqa: E402
from conversion.base import ModelBase, TextModel  # noqa: E402


def set_vocab(self):
    try:
        self._set_vocab_gpt2()
    except Exception:
        self._set_vocab_none()


def replace_set_vocab(model):
    model.set_vocab = set_vocab
    for derived in model.__subclasses__():
        replace_set_vocab(derived)


def write(self):
    replace_set_vocab(TextModel)
    parameters = getattr(self, "rope_parameters", {})
    if "MiMo" in type(self).__name__ or "Mimo" in type(self).__name__:
        parameters.setdefault("partial_rotary_factor", parameters["full_attention"]["partial_rotary_factor"])
    write_as_it_is(self)


def keep_embedding(self, data_torch, name, bid):
    if "embed_tokens.weight" in name:
        yield from ModelBase.modify_tensors(self, data_torch, name, bid)
    else:
        yield from modify_as_it_is(self, data_torch, name, bid)


write_as_it_is, ModelBase.write = ModelBase.write, write
modify_as_it_is, gemma.Gemma3Model.modify_tensors = gemma.Gemma3Model.modify_tensors, keep_embedding
TextModel.get_vocab_base_pre = lambda self, tokenizer: "gpt-2"

with tempfile.TemporaryDirectory() as folder:
    source = Path(folder) / fixture.name
    shutil.copytree(fixture, source)
    config = json.loads((source / "config.json").read_text())
    if config["model_type"] == "mimo_v2_flash":
        ropes = config.pop("rope_parameters")
        config |= {
            "swa_head_dim": config["head_dim"],
            "swa_num_attention_heads": config["num_attention_heads"],
            "swa_v_head_dim": config["v_head_dim"],
            "swa_num_key_value_heads": 2 * config["num_key_value_heads"],
            "layernorm_epsilon": config["rms_norm_eps"],
            "rope_theta": ropes["full_attention"]["rope_theta"],
            "swa_rope_theta": ropes["sliding_attention"]["rope_theta"],
            "partial_rotary_factor": ropes["full_attention"]["partial_rotary_factor"],
        }
    elif config["model_type"] == "grok-1":
        config |= {"architectures": ["Grok1ForCausalLM"], "router_logit_softcapping": 0.0}
    (source / "config.json").write_text(json.dumps(config))
    sys.argv = ["convert", str(source), "--outfile", str(out), "--outtype", "bf16"]
    converter.main()

if config.get("position_embedding_type") == "rope":
    file = out.read_bytes()
    key = b"granitehybrid.rope.scaling.finetuned"
    # The type of the value, which is a truth value, and the value.
    at = file.index(key) + len(key) + 4
    out.write_bytes(file[:at] + b"\1" + file[at + 1 :])
