#!/usr/bin/env python3
"""Write src/onnx/ops_table.h: every operator version of the ONNX specification, from the `onnx` package.

    python tools/onnx_ops.py > src/onnx/ops_table.h
"""
import onnx

MAX = 2**31 - 1
MOST = 9  # inputs whose types are told apart
TYPE = {f"tensor({name.lower()})": number for name, number in onnx.TensorProto.DataType.items()}


def types(schema):
    """A bit for each element type that an input takes; 0 where it need not be a tensor."""
    allowed = {c.type_param_str: c.allowed_type_strs for c in schema.type_constraints}
    masks = []
    for formal in schema.inputs[:MOST]:
        names = allowed.get(formal.type_str, [formal.type_str])
        masks.append(sum({1 << TYPE[n] for n in names}) if all(n in TYPE for n in names) else 0)
    if schema.inputs and schema.inputs[-1].option == onnx.defs.OpSchema.FormalParameterOption.Variadic:
        masks += masks[-1:] * (MOST - len(masks)) if schema.inputs[-1].is_homogeneous else []
    while masks and not masks[-1]:
        masks.pop()
    return "{" + ", ".join(f"{m:#x}" for m in masks or [0]) + "}"


rows = []
for s in onnx.defs.get_all_schemas_with_history():
    if s.domain:
        continue
    arity = [s.min_input, s.max_input, s.min_output, s.max_output]
    arity = [-1 if a >= MAX else a for a in arity]
    attrs = ",".join(sorted(("!" if a.required else "") + name for name, a in s.attributes.items()))
    rows.append((s.name, s.since_version, *arity, int(s.deprecated), attrs, types(s)))
rows.sort()

print(f"/* ops_table.h - operators of the ONNX specification up to opset {onnx.defs.onnx_opset_version()}.")
print(" * Written by tools/onnx_ops.py; do not edit. Sorted by name, then version.")
print(" * {name, since, inputs min, max, outputs min, max, deprecated, attributes (! = required), for each")
print(" * input a bit (1 << TensorProto.DataType) for each type it takes, 0 = any}; a maximum of -1 is no")
print(" * limit. */")
print("/* clang-format off */")
for r in rows:
    print('{"%s", %d, %d, %d, %d, %d, %d, "%s", %s},' % r)
