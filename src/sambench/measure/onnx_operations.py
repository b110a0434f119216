"""Parameters and products of an ONNX file, which no counter of torch can look into."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from sambench.errors import InputError

PRODUCTS = ("Conv", "ConvTranspose", "Gemm", "MatMul")


def onnx_cost(path: Path) -> tuple[int, dict[str, int]]:
    """(parameters, FLOPs by operator): floating-point initializers, and two FLOPs per product.

    Batch normalization is usually folded into the convolutions of a file, so it may have fewer parameters than the
    module that it was exported from. Activations, norms and biases are not counted.

    Raises InputError when the file is no ONNX graph, or one whose shapes are not fixed.
    """
    import onnx

    try:
        graph = onnx.shape_inference.infer_shapes(onnx.load(str(path)), data_prop=True).graph
    except Exception as error:  # protobuf and onnx have exception types of their own
        raise InputError(path, expected="an ONNX graph", found=str(error).splitlines()[0]) from error
    shapes = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    for value in (*graph.input, *graph.value_info, *graph.output):
        shapes[value.name] = tuple(d.dim_value for d in value.type.tensor_type.shape.dim)
    floats = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16, onnx.TensorProto.DOUBLE)
    parameters = sum(math.prod(tensor.dims) for tensor in graph.initializer if tensor.data_type in floats)
    flops = dict.fromkeys(PRODUCTS, 0)
    for node in graph.node:
        if node.op_type in flops:
            flops[node.op_type] += 2 * _macs(node, shapes, path)
    return parameters, flops


def _macs(node: Any, shapes: dict[str, tuple[int, ...]], path: Path) -> int:
    """Multiplications of one node: the size of its output times the length of the sums in it."""
    names = (node.input[0], node.input[1], node.output[0])
    if not all(math.prod(shapes.get(name, (0,))) for name in names):
        raise InputError(path, node.name or node.op_type, expected="tensors of fixed shape", found="others")
    first, weight, output = (shapes[name] for name in names)
    if node.op_type == "Conv":  # weight (out, in / groups, h, w)
        return math.prod(output) * math.prod(weight[1:])
    if node.op_type == "ConvTranspose":  # weight (in, out / groups, h, w): every input value meets all of it
        return math.prod(first) * math.prod(weight[1:])
    if node.op_type == "Gemm":
        transposed = next((a.i for a in node.attribute if a.name == "transA"), 0)
        return math.prod(output) * first[0 if transposed else 1]
    return math.prod(output) * first[-1]
