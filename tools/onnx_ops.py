#!/usr/bin/env python3
"""Write src/onnx/ops_table.h: every operator version of the ONNX specification, from the `onnx` package.

    python tools/onnx_ops.py > src/onnx/ops_table.h
"""
import onnx

MAX = 2**31 - 1

rows = []
for s in onnx.defs.get_all_schemas_with_history():
    if s.domain:
        continue
    arity = [s.min_input, s.max_input, s.min_output, s.max_output]
    arity = [-1 if a >= MAX else a for a in arity]
    attrs = ",".join(sorted(("!" if a.required else "") + name for name, a in s.attributes.items()))
    rows.append((s.name, s.since_version, *arity, int(s.deprecated), attrs))
rows.sort()

print(f"/* ops_table.h - operators of the ONNX specification up to opset {onnx.defs.onnx_opset_version()}.")
print(" * Written by tools/onnx_ops.py; do not edit. Sorted by name, then version.")
print(" * {name, since, inputs min, max, outputs min, max, deprecated, attributes (! = required)};")
print(" * a maximum of -1 is no limit. */")
print("/* clang-format off */")
for r in rows:
    print('{"%s", %d, %d, %d, %d, %d, %d, "%s"},' % r)
print("/* clang-format on */")
