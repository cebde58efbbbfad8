import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from txtlib.cohort import load_cohort, split
from txtlib.hierarchical import SLACK, attend_in_sets, score_entries, sets_for
from txtlib.model import TxT
from txtlib.preprocess import fit_preprocessor
from txtlib.training import fit, load_trained
from txtlib.variants import VARIANTS, variant

OVERLAPPING = [[0, 1, 2], [2, 3], [4, 5, 6, 1]]  # with tokens 4, 3 and 5 long: two of them share a padded batch
APART = [[0, 1, 2], [3, 4, 5, 6]]
ALL = [[0, 1, 2, 3, 4, 5, 6]]
SINGLE = [[3], [0], [1], [2], [6], [5], [4]]
SETTINGS = dict(n_genes=7, outputs={"OS": 4, "Age": 1}, width=8, layers=2, heads=2, dropout=0.0, readout="mean")


def small(sets, name="product", **options):
    return variant(name, sets=sets, **{**SETTINGS, **options}).double().eval()


def patients(n=3, n_genes=7, seed=0):
    return torch.rand(n, n_genes, generator=torch.Generator().manual_seed(seed)).double()


def silence_between(net):
    for layer in net.blocks[:-1]:
        torch.nn.init.zeros_(layer.between.out.weight)
        torch.nn.init.zeros_(layer.between.narrow.weight)


# --- the slow twin: one patient, one set, one pair at a time --------------------------------------------------


def block_by_loops(block, strength, vectors, x):
    """Run a block over rows ``vectors`` of one patient, whose expression is the list of numbers ``x``."""
    heads, size = len(strength), len(vectors[0]) // len(strength)
    normed = [block.norm1(vector) for vector in vectors]
    q, k, v = (
        [(layer.weight @ row).view(heads, size) for row in normed] for layer in (block.query, block.key, block.value)
    )
    new = []
    for i, vector in enumerate(vectors):
        mixed = []
        for h in range(heads):
            scores = [q[i][h] @ k[j][h] / math.sqrt(2 * size) + strength[h] * x[i] * x[j] for j in range(len(x))]
            weights = torch.stack(scores).softmax(0)
            mixed.append(sum(weights[j] * v[j][h] for j in range(len(x))))
        row = vector + block.out.weight @ torch.cat(mixed)
        new.append(row + block.narrow.weight @ torch.relu(block.wide.weight @ block.norm2(row)))
    return new


def encode_by_loops(net, x):
    """Encode one patient (G,): sets, copies and tokens as the module's text says, with nothing padded."""
    sets, strength = net.settings["sets"], net.position.strength()
    genes, tokens = list(net.vectors), list(net.blocks[0].tokens)
    means = [sum(x[gene] for gene in members) / len(members) for members in sets]
    for number, layer in enumerate(net.blocks):
        copies = [[] for _ in genes]
        for s, members in enumerate(sets):
            rows = [tokens[s], *(genes[gene] for gene in members)]
            tokens[s], *updated = block_by_loops(layer.within, strength, rows, [means[s], *(x[g] for g in members)])
            for gene, vector in zip(members, updated, strict=True):
                copies[gene].append(vector)
        genes = [sum(found) / len(found) for found in copies]
        if number < len(net.blocks) - 1:
            tokens = block_by_loops(layer.between, strength, tokens, means)
    return net.norm(torch.stack(genes))


@pytest.mark.parametrize("sets", [OVERLAPPING, APART, ALL, SINGLE], ids=["overlapping", "apart", "all", "single"])
@pytest.mark.parametrize("layers", [1, 2, 3])
def test_batched_sets_equal_the_slow_twin(sets, layers):
    net, x = small(sets, layers=layers), patients(2)
    with torch.no_grad():
        expected = torch.stack([encode_by_loops(net, patient) for patient in x])
        torch.testing.assert_close(net.encode(x), expected, atol=1e-12, rtol=1e-10)


def test_all_shared_gradients_equal_those_of_the_slow_twin():
    net, x = small(OVERLAPPING), patients(2)
    ours = torch.autograd.grad(net.encode(x).pow(3).sum(), net.shared_parameters())  # each one takes part
    looped = sum(encode_by_loops(net, patient).pow(3).sum() for patient in x)
    for a, b in zip(ours, torch.autograd.grad(looped, net.shared_parameters()), strict=True):
        torch.testing.assert_close(a, b, atol=1e-10, rtol=1e-8)


# --- what it is in the limit ----------------------------------------------------------------------------------


def txt_of(net, members, token):
    """Build the TxT of some genes and a token, with the weights of a network with sets."""
    txt = TxT(**{**SETTINGS, "n_genes": len(members) + 1, "layers": len(net.blocks)}).double().eval()
    state = {name.replace(".within", ""): value for name, value in net.state_dict().items() if name in wanted(net)}
    txt.load_state_dict({**state, "vectors": torch.cat([net.vectors[members], token[None]])})
    return txt


def wanted(net):
    return [name for name in net.state_dict() if ".between." not in name and not name.endswith("tokens")]


def with_mean(x):
    return torch.cat([x, x.mean(1, keepdim=True)], 1)


@pytest.mark.parametrize("layers", [1, 3])
def test_one_set_of_all_genes_is_txt_with_the_token_as_one_more_gene(layers):
    net, x = small(ALL, layers=layers), patients()
    silence_between(net)
    with torch.no_grad():
        expected = txt_of(net, ALL[0], net.blocks[0].tokens[0]).encode(with_mean(x))[:, :7]
        torch.testing.assert_close(net.encode(x), expected, atol=1e-12, rtol=1e-10)


def test_sets_apart_that_do_not_speak_are_one_txt_each():
    net, x = small(APART, layers=3), patients()
    silence_between(net)
    with torch.no_grad():
        for members, token in zip(APART, net.blocks[0].tokens, strict=True):
            expected = txt_of(net, members, token).encode(with_mean(x[:, members]))[:, :-1]
            torch.testing.assert_close(net.encode(x)[:, members], expected, atol=1e-12, rtol=1e-10)


# --- what must not matter -------------------------------------------------------------------------------------


@given(st.integers(0, 1000))
@settings(deadline=None, max_examples=20)
def test_permuting_genes_with_their_vectors_and_columns_changes_nothing_under_mean_pooling(seed):
    net, x = small(OVERLAPPING), patients(seed=seed)
    order = torch.randperm(7, generator=torch.Generator().manual_seed(seed))
    other = small([[order.tolist().index(gene) for gene in members] for members in OVERLAPPING])
    other.load_state_dict({**net.state_dict(), "vectors": net.vectors[order]})
    with torch.no_grad():
        expected, permuted = net(x), other(x[:, order])
    for task in SETTINGS["outputs"]:
        torch.testing.assert_close(permuted[task], expected[task])


def test_the_order_of_sets_and_of_genes_in_them_changes_nothing():
    net, x = small(OVERLAPPING), patients()
    other = small([members[::-1] for members in OVERLAPPING[::-1]])
    other.load_state_dict({**net.state_dict(), "blocks.0.tokens": net.blocks[0].tokens.flip(0)})
    torch.testing.assert_close(other.encode(x), net.encode(x))


@pytest.mark.parametrize("scale", [1, 1e4])
def test_padding_has_no_influence_and_no_gradient(scale):
    net, x = small(OVERLAPPING).float(), (patients() * scale).float()
    padded = [batch for batch in net.blocks[0].rows.batches if not batch.real.all()]
    assert padded
    answers = []
    for row in (0, 5, 8):  # in place of padding: a gene, another one, a token
        for batch in padded:
            batch.rows[~batch.real] = row
        hidden = net.encode(x)
        answers.append([hidden, *torch.autograd.grad(hidden.pow(3).sum(), net.shared_parameters())])
    for other in answers[1:]:
        assert all(torch.equal(a, b) for a, b in zip(answers[0], other, strict=True))


def test_a_patients_answer_does_not_depend_on_the_others():
    net, x = small(OVERLAPPING), patients(5)
    with torch.no_grad():
        torch.testing.assert_close(net(x[2:3])["OS"], net(x)["OS"][2:3])


def test_the_model_is_even_in_expression_as_txt_is():
    net, x = small(OVERLAPPING), patients() - 0.5
    torch.testing.assert_close(net.encode(x), net.encode(-x))


# --- how news travels -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("layers, heard", [(1, False), (2, True)])
def test_a_gene_hears_of_a_gene_of_another_set_after_two_layers_and_not_after_one(layers, heard):
    net, x = small(APART, layers=layers), patients()
    changed = x.clone()
    changed[:, 0] += 1
    with torch.no_grad():
        difference = (net.encode(changed) - net.encode(x)).abs().amax(2)  # (B, G)
    assert (difference[:, APART[0]] > 1e-6).all()
    assert (difference[:, APART[1]] > 1e-12).all() if heard else (difference[:, APART[1]] == 0).all()


def test_with_silent_tokens_sets_apart_never_hear_of_each_other():
    net, x = small(APART, layers=4), patients()
    silence_between(net)
    changed = x.clone()
    changed[:, 0] += 1
    assert torch.equal(net.encode(changed)[:, APART[1]], net.encode(x)[:, APART[1]])


# --- as a network of the library ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("readout", ["flatten", "mean"])
def test_each_variant_takes_sets_and_has_the_shapes_of_txt(name, readout):
    net, x = small(OVERLAPPING, name, readout=readout), 4 * patients()
    assert net.encode(x).shape == (3, 7, 8)
    assert {task: tuple(out.shape) for task, out in net(x).items()} == {"OS": (3, 4), "Age": (3, 1)}
    same = torch.allclose(net.encode(x)[0], net.encode(x)[1])
    assert same == (name == "none")


@pytest.mark.parametrize("name", VARIANTS)
def test_blocks_and_heads_start_as_those_of_the_same_seed_and_the_global_state_stays(name):
    before = torch.get_rng_state()
    ours, other = (variant(name, seed=3, sets=OVERLAPPING, **SETTINGS) for _ in range(2))
    assert torch.equal(before, torch.get_rng_state())
    plain = variant(name, seed=3, **SETTINGS).state_dict()
    for key, value in ours.state_dict().items():
        assert torch.equal(value, other.state_dict()[key])
        if key in wanted(ours):
            assert torch.equal(value, plain.pop(key.replace(".within", "")))
    assert not plain


def test_tokens_start_at_the_mean_of_their_genes_vectors():
    vectors = torch.arange(56.0).view(7, 8)
    tokens = variant("product", sets=OVERLAPPING, vectors=vectors, **SETTINGS).blocks[0].tokens
    torch.testing.assert_close(tokens.detach(), torch.stack([vectors[genes].mean(0) for genes in OVERLAPPING]))
    assert tokens.requires_grad


def test_it_trains_saves_and_loads(tmp_path):
    parts = split(load_cohort("gse7390"), seed=0)
    fitted = fit_preprocessor(parts.train, n_genes=7, n_times=4, grid="quantile").with_tasks("DM", "Age")
    sets = sets_for(fitted.genes, {"A": fitted.genes[:3], "B": fitted.genes[2:4]}, rest=2)
    net = variant("product", sets=sets, **{**SETTINGS, "dropout": 0.1, "outputs": fitted.outputs})
    assert json.loads(json.dumps(net.settings)) == net.settings
    start = {name: value.clone() for name, value in net.state_dict().items()}
    trained = fit(net, parts.train, parts.validation, fitted, epochs=2, progress=False)
    assert not torch.equal(start["blocks.0.tokens"], net.blocks[0].tokens)
    trained.save(tmp_path / "net.safetensors")
    again = load_trained(tmp_path / "net.safetensors")
    np.testing.assert_array_equal(again.predict(parts.test).survival, trained.predict(parts.test).survival)
    assert again.network.settings == net.settings and again.network.settings["sets"] == sets


def test_bfloat16_agrees_to_its_precision():
    net, x = small(OVERLAPPING).float(), patients().float()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        rough = net.encode(x)
    torch.testing.assert_close(rough.float(), net.encode(x).detach(), atol=0.05, rtol=0.05)


def test_attention_between_all_genes_is_refused():
    with pytest.raises(ValueError, match="no attention between all genes"):
        small(OVERLAPPING).attention(patients(), 0)


# --- cost -----------------------------------------------------------------------------------------------------


def test_score_entries():
    assert score_entries(OVERLAPPING) == 4**2 + 3**2 + 5**2 + 3**2
    assert score_entries([list(range(100))]) == 101**2 + 1


def test_a_layer_makes_the_scores_that_were_counted_and_little_padding():
    rng = np.random.default_rng(0)
    names = [f"g{number}" for number in range(400)]
    named = {str(number): rng.choice(names, size, replace=False) for number, size in enumerate(rng.integers(2, 60, 12))}
    sets, made = sets_for(names, named, rest=50), {"within": 0, "between": 0}
    net = variant("product", sets=sets, **{**SETTINGS, "n_genes": 400}).eval()
    for name, module in net.named_modules():
        kind = name.rsplit(".", 1)[-1]
        if kind in made:
            module.register_forward_pre_hook(lambda _, inputs, kind=kind: made.update(count(made, kind, inputs[0])))
    net.encode(torch.rand(1, 400))
    assert made["between"] == len(sets) ** 2  # two layers, of which the last has no such step
    within = score_entries(sets) - len(sets) ** 2
    assert 2 * within <= made["within"] <= 2 * within / SLACK**2 < 2 * 400**2 / 4


def count(made, kind, hidden):
    return {kind: made[kind] + hidden.shape[0] * hidden.shape[1] ** 2}


# --- sets -----------------------------------------------------------------------------------------------------


def test_sets_for_cuts_down_drops_and_covers():
    named = {"A": ["c", "x", "a", "c"], "B": ["y"], "C": ["d", "a"]}
    assert sets_for(list("abcdefg"), named, rest=3) == [[0, 2], [0, 3], [1, 4], [5, 6]]
    assert sets_for(list("abc"), {"A": list("cba")}) == [[0, 1, 2]]


@given(st.integers(2, 40), st.integers(1, 12), st.integers(0, 1000))
@settings(deadline=None, max_examples=50)
def test_every_gene_is_in_a_set_and_the_rest_in_order_in_few_even_ones(n_genes, rest, seed):
    rng = np.random.default_rng(seed)
    genes = [f"g{number}" for number in range(n_genes)]
    named = {"A": rng.choice(genes, rng.integers(1, n_genes), replace=False).tolist(), "B": ["other"]}
    first, *others = sets_for(genes, named, rest)
    assert [genes[column] for column in first] == sorted(named["A"], key=genes.index)
    assert [gene for members in others for gene in members] == sorted(set(range(n_genes)) - set(first))
    sizes = [len(members) for members in others]
    assert max(sizes) <= rest and max(sizes) - min(sizes) <= 1 and len(sizes) == math.ceil(sum(sizes) / rest)


@pytest.mark.parametrize(
    "genes, named, rest, message",
    [
        ("aba", {"A": ["a"]}, 3, "Gene 'a' stands there more than once"),
        ("ab", {"A": ["a"]}, 0, "rest is 0"),
        ("ab", {"A": ["A", "B"]}, 3, "None of the 2 genes .the first is a. is in any of the 1 gene sets"),
        ("ab", {"A": ["c"]}, 3, "in any of the 1 gene sets"),
        ("", {"A": ["a"]}, 3, "None of the 0 genes"),
    ],
)
def test_sets_for_refuses(genes, named, rest, message):
    with pytest.raises(ValueError, match=message):
        sets_for(list(genes), named, rest)


@pytest.mark.parametrize(
    "sets, message",
    [
        ([[0, 1, 2], [3, 4, 5, 7]], "holds column 7, and the network has columns 0 to 6"),
        ([[0, 1, 2], [3, 4, 5, -1]], "holds column -1"),
        ([*ALL, []], "one column or more, each once"),
        ([*ALL, [1, 2, 1]], "each once, not .1, 2, 1."),
        ([[0, 1], [3, 4]], "3 genes are in no set .the first is column 2."),
        ([], "7 genes are in no set"),
        ({"HALLMARK": ["TP53"]}, "A set is a list of column numbers .*sets_for makes them of names"),
        ([0, 1, 2], "A set is a list of column numbers"),
        ([[0.5, 1]], "A set is a list of column numbers"),
    ],
)
def test_a_network_refuses_bad_sets_and_stays_as_it_was(sets, message):
    net = TxT(**SETTINGS)
    with pytest.raises(ValueError, match=message):
        attend_in_sets(net, sets)
    assert "sets" not in net.settings and list(net.state_dict()) == list(TxT(**SETTINGS).state_dict())


def test_numbers_of_numpy_and_torch_are_taken_as_plain_ones():
    net = small([np.array(APART[0]), torch.tensor(APART[1])])
    assert net.settings["sets"] == APART and json.dumps(net.settings)


def test_sets_cannot_be_put_in_twice():
    net = small(APART)
    with pytest.raises(ValueError, match="already attend in sets"):
        attend_in_sets(net, APART)


def test_without_named_sets_the_genes_are_cut_into_blocks():
    assert sets_for("abcde", {}, rest=2) == [[0], [1, 2], [3, 4]]
