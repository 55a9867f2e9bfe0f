"""Costs: each op's rule against a count by other means, tables of the papers, and how layers are told apart."""

import tracemalloc
from dataclasses import astuple

import numpy as np
import pytest

from minivit import ops
from minivit.analysis import cost
from minivit.analysis.throughput import images_per_second
from minivit.models import create_model
from minivit.nn import BinaryConv2d
from minivit.nn.init import normal
from minivit.nn.layers import LayerNorm, Linear
from minivit.nn.module import Buffer, Module, Parameter
from minivit.tensor import Tensor, observe


def ones(*shape):
    return Tensor(np.ones(shape, np.float32))


def counted(function, *inputs):
    """The Counts of a function of tensors, and its result."""

    class Only(Module):
        def forward(self, *args):
            return function(*args)

    only = Only()
    counter = cost._Counter(only)
    with observe(counter):
        result = only(*inputs)
    return counter.network.own, result


class TestMultiplyAdds:
    @pytest.mark.parametrize(
        "function, shapes, expected",
        [
            (lambda x, w: ops.linear(x, w), [(2, 5, 3), (7, 3)], 2 * 5 * 3 * 7),
            (ops.matmul, [(4, 3), (3, 6)], 4 * 3 * 6),
            (ops.matmul, [(3,), (3,)], 3),
            (ops.matmul, [(3,), (2, 3, 5)], 2 * 3 * 5),
            (ops.matmul, [(2, 4, 3), (3,)], 2 * 4 * 3),
            (ops.matmul, [(2, 1, 3, 4), (5, 4, 6)], 2 * 5 * 3 * 4 * 6),
            (lambda x, w: ops.conv2d(x, w), [(2, 3, 8, 9), (4, 3, 3, 2)], 2 * 4 * 6 * 8 * 3 * 3 * 2),
            (lambda x, w: ops.conv2d(x, w, stride=2), [(1, 3, 9, 9), (4, 3, 3, 3)], 4 * 4 * 4 * 27),
            (lambda x, w: ops.conv2d(x, w, groups=2), [(1, 6, 5, 5), (4, 3, 1, 1)], 4 * 25 * 3),
            (lambda x, w: ops.conv2d(x, w, groups=6), [(1, 6, 5, 5), (12, 1, 3, 3)], 12 * 9 * 9),
            (lambda a, b: ops.einsum("bhnd,bhmd->bhnm", a, b), [(2, 3, 4, 5), (2, 3, 6, 5)], 2 * 3 * 4 * 5 * 6),
            (lambda a, b: ops.einsum("ij,ij->", a, b), [(4, 5), (4, 5)], 20),
            (lambda a, b: ops.einsum("ij,jk->ik", a, b), [(4, 1), (5, 6)], 4 * 5 * 6),
        ],
    )
    def test_products_of_ones_add_up_to_their_number(self, function, shapes, expected):
        counts, result = counted(function, *(ones(*shape) for shape in shapes))
        assert counts.macs == expected == result.data.sum()

    def test_padding_is_multiplied_too(self):
        counts, _ = counted(lambda x, w: ops.conv2d(x, w, stride=2, padding=1), ones(1, 3, 8, 8), ones(4, 3, 3, 3))
        assert counts.macs == 4 * 4 * 4 * 27

    def test_a_bias_is_free(self):
        assert counted(ops.linear, ones(2, 3), ones(4, 3), ones(4))[0].macs == 24
        assert counted(ops.conv2d, ones(1, 2, 4, 4), ones(5, 2, 1, 1), ones(5))[0].macs == 160

    def test_einsum_of_one_and_of_three(self):
        assert counted(lambda a: ops.einsum("ij->i", a), ones(4, 5))[0].macs == 0
        three = counted(lambda a, b, c: ops.einsum("ij,jk,kl->il", a, b, c), ones(2, 3), ones(3, 4), ones(4, 5))
        assert three[0].macs == 2 * (2 * 3 * 4 * 5)

    def test_attention_counts_like_its_two_products(self):
        q, k, v, scale = ones(2, 3, 4, 5), ones(2, 3, 6, 5), ones(2, 3, 6, 7), ones(3)
        fused, _ = counted(ops.attention, q, k, v, scale)
        plain, _ = counted(lambda q, k, v: ops.softmax(q @ k.swapaxes(-1, -2)) @ v, q, k, v)
        assert fused.macs == plain.macs == 2 * 3 * 4 * 6 * (5 + 7)

    def test_self_attention_counts_like_its_two_products(self):
        fused, _ = counted(ops.self_attention, ones(2, 9, 3 * 4 * 5), ones(4))
        assert fused.macs == 2 * (2 * 4 * 9 * 9 * 5)

    @pytest.mark.parametrize(
        "function",
        [
            ops.softmax, ops.gelu, ops.exp, ops.relu, lambda x: x + x, lambda x: x * x, lambda x: x.mean(axis=1),
            lambda x: ops.avg_pool2d(x, 2), lambda x: ops.max_pool2d(x, 2), lambda x: ops.unfold(x, 2),
            lambda x: ops.layer_norm(x, ones(6), ones(6)), lambda x: ops.concat([x, x]), lambda x: x[:, :1],
        ],
    )  # fmt: skip
    def test_all_else_is_free(self, function):
        assert counted(function, ones(2, 3, 4, 6))[0].macs == 0


class TestBinaryOperations:
    def test_products_of_bits_are_binary_operations_only(self):
        counts, result = counted(ops.binary_linear, ones(2, 5, 3), ones(7, 3))
        assert (counts.bops, counts.macs) == (result.data.sum(), 0)
        counts, result = counted(ops.binary_matmul, ones(2, 4, 5, 3), ones(2, 4, 3, 6))
        assert (counts.bops, counts.macs) == (result.data.sum(), 0)
        counts, _ = counted(BinaryConv2d(3, 5, init=normal(None)).forward, ones(1, 3, 8, 6))
        assert counts.bops == 4 * 3 * (3 * 4 * 5)

    def test_affine_layers_are_multiplies_of_their_own(self):
        counts, _ = counted(ops.affine, ones(2, 5, 3), ones(3), ones(3))
        assert (counts.affine_multiplies, counts.macs) == (30, 0)
        counts, _ = counted(lambda *a: ops.pooling_branches(*a, grid=(2, 3)), ones(1, 6, 5), ones(4, 5), ones(4, 5))
        assert (counts.affine_multiplies, counts.macs) == (4 * 30, 0)

    def test_binary_weights(self):
        counts, _ = counted(lambda w: ops.binary_weight(w, centred=True), ones(7, 3))
        assert counts.binary_weights == 21

    @pytest.mark.parametrize(
        "function, shapes",
        [
            (ops.sign, [(4, 6)]), (ops.rprelu, [(4, 6), (6,), (6,), (6,)]), (ops.quantize_probabilities, [(4, 6), ()]),
            (ops.add_shortcut, [(4, 12), (4, 6)]), (ops.add_shortcut, [(4, 3), (4, 6)]),
        ],
    )  # fmt: skip
    def test_all_else_is_free(self, function, shapes):
        counts, _ = counted(function, *(ones(*shape) for shape in shapes))
        assert (counts.bops, counts.flops, counts.binary_weights) == (0, 0, 0)


class TestMemory:
    def test_new_arrays_count_and_views_do_not(self):
        assert counted(ops.exp, ones(3, 4))[0].activation_bytes == 48
        assert counted(lambda x: x.reshape(12).reshape(4, 3)[1:].swapaxes(0, 1), ones(3, 4))[0].activation_bytes == 0
        assert counted(lambda x: x.swapaxes(0, 1).reshape(12), ones(3, 4))[0].activation_bytes == 48  # has to copy
        assert counted(lambda x: ops.broadcast_to(x, (9, 3, 4)), ones(3, 4))[0].activation_bytes == 0

    def test_attention_keeps_its_weights(self):
        counts, _ = counted(ops.attention, ones(2, 3, 4, 5), ones(2, 3, 6, 5), ones(2, 3, 6, 7), ones(3))
        assert counts.activation_bytes == 4 * (2 * 3 * 4 * 7 + 2 * 3 * 4 * 6)
        counts, _ = counted(ops.self_attention, ones(2, 9, 60), ones(4))
        assert counts.activation_bytes == 4 * (2 * 9 * 20 + 2 * 4 * 9 * 9)

    def test_rows_that_lie_otherwise_are_copied(self):
        columns, params = ones(3, 4).swapaxes(0, 1), (ones(3), ones(3))
        assert counted(ops.layer_norm, columns, *params)[0].activation_bytes == 2 * 48
        assert counted(ops.linear, columns, ones(5, 3))[0].activation_bytes == 4 * 4 * (5 + 3)

    @pytest.mark.parametrize(
        "name, least, keywords",
        [
            ("sl_vit", 0.8, {}), ("pit", 0.8, {}), ("swin", 0.8, {}), ("t2t", 0.75, {}), ("resnet20", 0.5, {}),
            ("sl_t2t", 0.85, {"depth": 1, "img_size": 64}), ("t2t_vit_t_14", 0.85, {"depth": 1, "img_size": 64}),
            ("binary_vit", 0.5, {"depths": (1, 1, 1, 1), "img_size": 64}),
        ],
    )  # fmt: skip
    def test_it_bounds_what_the_tape_of_a_training_step_holds(self, name, least, keywords):
        model = create_model(name, seed=0, **keywords)
        size = model.config.img_size
        images = Tensor(np.random.default_rng(0).standard_normal((4, 3, size, size), np.float32))
        model(images)  # compiles
        tracemalloc.start()
        try:
            before = tracemalloc.get_traced_memory()[0]
            logits = model(images)
            held = (tracemalloc.get_traced_memory()[0] - before) / len(images)
        finally:
            tracemalloc.stop()
        assert logits.requires_grad
        assert least < held / cost.measure(model).total().activation_bytes < 1


class Part(Module):
    """x -> LayerNorm(Linear(x)) + table, and what does not run."""

    def __init__(self, width):
        def init(shape, fan_in=None):
            return np.zeros(shape, np.float32)

        self.table = Buffer(np.zeros(width, np.float32))
        self.fc = Linear(width, width, init=init)
        self.norm = LayerNorm(width)
        self.unused = LayerNorm(7)

    def forward(self, x):
        return self.norm(self.fc(x)) + self.table


class Whole(Module):
    def __init__(self, widths):
        self.gain = Parameter(np.ones(1, np.float32))
        self.parts = [Part(width) for width in widths]

    def forward(self, x):
        for part in self.parts:
            width = part.table.size
            x = part(x[..., :width]) * self.gain
        return x


def table(network, **options):
    """Name and output of each row, its parameters, buffers, multiply-adds, elements of LayerNorm, and bytes."""
    rows = [(row.name, row.output, astuple(row.counts)) for row in cost.rows(network, **options)]
    return [(name, output, *counts[:4], counts[-1]) for name, output, counts in rows]


class TestLayers:
    def test_each_number_belongs_to_the_module_that_makes_it(self):
        network = cost.measure(Whole([4]), np.zeros((1, 3, 4), np.float32))
        (part,) = network.layers
        fc, norm = part.layers
        assert (network.name, part.name, fc.name, norm.name) == ("", "parts.0", "fc", "norm")
        assert (network.kind, part.kind, fc.kind) == ("Whole", "Part", "Linear")
        assert fc.own == cost.Counts(parameters=20, macs=48, activation_bytes=48)
        assert norm.own == cost.Counts(parameters=8, norm_elements=12, activation_bytes=48)
        assert part.own == cost.Counts(parameters=14, buffers=4, activation_bytes=48)  # 14: of the norm that never runs
        assert network.own == cost.Counts(parameters=1, activation_bytes=48)
        assert network.total() == cost.Counts(43, 4, 48, 12, activation_bytes=4 * 48)
        assert network.total().weight_bytes == 4 * 47 and network.total().ops == 48

    def test_binary_operations_count_a_sixty_fourth(self):
        counts = cost.Counts(macs=100, affine_multiplies=10, bops=6400)
        assert counts.flops == 110 and counts.ops == 210

    def test_equal_neighbours_share_rows(self):
        network = cost.measure(Whole([4, 4, 4]), np.zeros((1, 3, 4), np.float32))
        assert table(network) == [
            ("(own)", (3, 4), 1, 0, 0, 0, 144),
            ("parts.0-2 (own)", (3, 4), 42, 12, 0, 0, 144),
            ("parts.0-2.fc", (3, 4), 60, 0, 144, 0, 144),
            ("parts.0-2.norm", (3, 4), 24, 0, 0, 36, 144),
        ]
        assert [row[0] for row in table(network, depth=1)] == ["(own)", "parts.0-2"]
        unfolded = [row[0] for row in table(network, depth=1, fold=False)]
        assert unfolded == ["(own)", "parts.0", "parts.1", "parts.2"]

    def test_unequal_neighbours_do_not(self):
        network = cost.measure(Whole([4, 4, 3, 4 - 1, 2]), np.zeros((1, 3, 4), np.float32))
        names = [row[0] for row in table(network, depth=1)]
        assert names == ["(own)", "parts.0-1", "parts.2-3", "parts.4"]

    @pytest.mark.parametrize("name", ["sl_vit", "sl_swin", "pit", "cait", "sl_t2t", "binary_vit"])
    @pytest.mark.parametrize("fold", [True, False])
    def test_rows_add_up_to_the_whole(self, name, fold):
        model = create_model(name, seed=None, img_size=32)
        network = cost.measure(model)
        for depth in (1, 2, 3, 9):
            rows = list(cost.rows(network, depth, fold))
            assert sum((row.counts for row in rows), cost.Counts()) == network.total()
            assert len({row.name for row in rows}) == len(rows)
        state = model.state_dict()
        assert network.total().parameters == model.num_parameters()
        assert network.total().weight_bytes == 4 * sum(array.size for array in state.values())

    def test_a_training_network_stays_one_and_dropout_does_not_act(self):
        model = create_model("vit", depth=1, drop_rate=0.5, drop_path_rate=0.5, seed=None)
        first = cost.measure(model).total()
        assert model.training and model.blocks[0].training
        assert cost.measure(model.eval()).total() == first
        assert not model.training


# Parameters and millions of multiply-adds at 32 pixels and 100 classes, at 64 pixels and 200 classes, and there with
# one operation for each element of LayerNorm: counted on the authors' code (Lee, Lee & Song 2021).
SMALL = {
    "vit": (2_709_796, 187.73, 2_756_744, 189.52, 189.75),
    "sl_vit": (2_747_248, 190.09, 2_906_228, 198.96, 199.25),
    "t2t": (6_509_210, 457.23, 6_659_262, 636.35, 637.02),
    "sl_t2t": (6_530_211, 462.54, 6_680_264, 657.58, 658.36),
    "cait": (9_037_988, 595.71, 9_084_936, 597.50, 598.09),
    "sl_cait": (9_075_436, 598.07, 9_234_416, 606.94, 607.59),
    "pit": (7_007_236, 274.42, 7_049_192, 275.35, 275.65),
    "sl_pit": (8_676_664, 317.90, 8_732_804, 322.37, 322.91),
    "swin": (7_107_838, 240.98, 7_149_794, 241.90, 242.27),
    "sl_swin": (8_596_816, 279.91, 8_652_956, 284.37, 284.92),
}

# Trainable parameters and giga multiply-adds at 224 pixels (or as the name says) of timm's models, for T2T those of
# the authors' code and README.
IMAGENET = {
    "deit_tiny_patch16_224": (5_717_416, "1.254"),
    "deit_small_patch16_224": (22_050_664, "4.599"),
    "deit_base_patch16_224": (86_567_656, "17.564"),
    "deit_tiny_distilled_patch16_224": (5_910_800, "1.261"),
    "deit_small_distilled_patch16_224": (22_436_432, "4.624"),
    "deit_base_distilled_patch16_224": (87_338_192, "17.657"),
    "vit_small_patch32_224": (22_878_952, "1.143"),
    "vit_base_patch32_224": (88_224_232, "4.409"),
    "cait_xxs24_224": (11_956_264, "2.52"),
    "pit_ti_224": (4_847_272, "0.699"),
    "pit_xs_224": (10_618_888, "1.395"),
    "pit_s_224": (23_461_912, "2.871"),
    "pit_b_224": (73_764_840, "12.402"),
    "swin_tiny_patch4_window7_224": (28_288_354, "4.491"),
    "swin_small_patch4_window7_224": (49_606_258, "8.741"),
    "swin_base_patch4_window7_224": (87_768_224, "15.431"),
    "t2t_vit_7": (4_255_694, "1.1"),
    "t2t_vit_14": (21_465_806, "4.8"),
    "t2t_vit_t_14": (21_465_422, "6.1"),
    "regnety_002": (3_162_996, "0.200"),
    "regnety_004": (4_344_144, "0.402"),
    "regnety_160": (83_590_140, "15.912"),
    "resnet20": (272_474, "0.041"),  # of the layers' shapes: at 32 pixels, 10 classes
    "resnet110": (1_730_714, "0.253"),
}


# Binary networks at 224 pixels, 1000 classes: trainable parameters, entries of the state dict with all counters, binary
# weights, BOPs, FLOPs, OPs. Parameters were counted on the authors' code; BinaryViT's 0.19e8 FLOPs and 0.79e8 OPs are
# the paper's.
BINARY = {
    "binary_deit_cls": (22_294_900, 22_406_369, 21_233_664, 4_540_695_552, 58_186_752, 129_135_120),
    "binary_deit_gap": (22_294_132, 22_405_601, 21_233_664, 4_515_840_000, 58_186_752, 128_746_752),
    "binary_deit_branches": (22_330_996, 22_442_465, 21_233_664, 4_515_840_000, 61_799_424, 132_359_424),
    "binary_deit_affine": (22_349_428, 22_460_897, 21_233_664, 4_515_840_000, 63_605_760, 134_165_760),
    "binary_vit": (22_491_771, 22_618_037, 21_196_800, 3_822_206_976, 19_177_472, 78_899_456),
    "binary_vit_star": (22_488_635, 22_614_901, 20_508_672, 3_745_136_640, 96_247_808, 154_765_568),
}


@pytest.mark.parametrize("name", BINARY)
def test_binary_models(name):
    model = create_model(name, seed=None)
    total = cost.measure(model).total()
    state = sum(array.size for array in model.state_dict().values())
    assert state == total.parameters + total.buffers
    found = (total.parameters, state, total.binary_weights, total.bops, total.flops, total.ops)
    assert found == BINARY[name]


def test_binary_vit_has_as_many_entries_as_the_official_one():
    model = create_model("binary_vit", seed=None)
    assert len(model.state_dict()) == 1919 and len(list(model.named_buffers())) == 558


@pytest.mark.parametrize("name", SMALL)
def test_small_data_family(name):
    parameters_32, macs_32, parameters_64, macs_64, with_norm = SMALL[name]
    total = cost.measure(create_model(name, seed=None, img_size=32, num_classes=100)).total()
    assert (total.parameters, round(total.macs / 1e6, 2)) == (parameters_32, macs_32)
    total = cost.measure(create_model(name, seed=None, img_size=64, num_classes=200)).total()
    assert (total.parameters, round(total.macs / 1e6, 2)) == (parameters_64, macs_64)
    assert abs((total.macs + total.norm_elements) / 1e6 - with_norm) < 0.005


@pytest.mark.parametrize("name", IMAGENET)
def test_imagenet_models(name):
    parameters, gmacs = IMAGENET[name]
    total = cost.measure(create_model(name, seed=None)).total()
    digits = len(gmacs.partition(".")[2])
    assert (total.parameters, f"{total.macs / 1e9:.{digits}f}") == (parameters, gmacs)


def test_fixed_tables_and_features_are_weights_but_no_parameters():
    assert cost.measure(create_model("t2t_vit_7", seed=None)).total().buffers == 4_310_222 - 4_255_694


def test_images_need_not_be_square():
    name = "deit_tiny_patch16_224"
    half = cost.measure(create_model(name, seed=None, img_size=(112, 224))).total()
    whole = cost.measure(create_model(name, seed=None)).total()
    patches, tokens = 98, 99
    assert half.macs == 768 * 192 * patches + 12 * (12 * 192**2 * tokens + 2 * tokens**2 * 192) + 192 * 1000
    assert whole.parameters - half.parameters == 98 * 192


def test_throughput_is_measured():
    model = create_model("vit", depth=1, embed_dim=24, num_heads=2, seed=0)
    assert images_per_second(model, batch_size=2, runs=2, seconds=0) > 0
    assert model.training
