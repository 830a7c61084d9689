#!/usr/bin/env python3
"""Writes a GGUF file anew with every tensor in F32 and all other metadata as they are.

    widen-gguf.py IN.gguf OUT.gguf
"""

import sys

import gguf

# What the writer counts by itself, or what the weights have been until now.
LEFT_OUT = {"general.architecture", "general.file_type", "general.quantization_version"}


def main(source: str, target: str) -> None:
    reader = gguf.GGUFReader(source)
    writer = gguf.GGUFWriter(target, reader.get_field("general.architecture").contents())
    for field in reader.fields.values():
        if field.name in LEFT_OUT or field.name.startswith("GGUF."):
            continue
        kind = field.types[0]
        item = field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(field.name, field.contents(), kind, sub_type=item)
    for tensor in reader.tensors:
        # The shape of a reader has the length of a row first.
        values = gguf.quants.dequantize(tensor.data, tensor.tensor_type).reshape(tensor.shape[::-1])
        writer.add_tensor(tensor.name, values.astype("float32"))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
