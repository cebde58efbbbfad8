"""OmiEmbed-like: the autoencoder, the three phases, the tasks' weights, and the answers."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from helpers import c_interval, known, relabelled, with_permuted_outcomes
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from txtlib.balance import GradNorm
from txtlib.benchmark import Method, run
from txtlib.cohort import CohortError, split
from txtlib.losses import mtlr_nll
from txtlib.metrics import accuracy, balanced_accuracy, harrell_c, mean_absolute_error
from txtlib.peers import omiembed
from txtlib.peers.floors import Trivial
from txtlib.peers.omiembed import SPACE, Network, OmiEmbed, divergence, loss_of, rate_share
from txtlib.planted import planted
from txtlib.preprocess import fit_preprocessor

SMALL = dict(n_genes=10, n_times=5, latent=4, hidden=[8], phases=[1, 1, 2], batch_size=16, learning_rate=1e-3)
KINDS = {"Age": "regression", "Grade": "classification", "OS": "survival"}
OUTPUTS = {"Age": 1, "Grade": 3, "OS": 5}


@pytest.fixture(scope="module")
def parts(build):
    cohort = build(90)
    names = cohort.samples
    return cohort.take(names[:60]), cohort.take(names[60:75]), cohort.take(names[75:])


def fitted(parts, **options):
    return OmiEmbed(**{**SMALL, **options}).fit(*parts[:2])


def answers(answer):
    """Return all numbers of an answer."""
    return np.column_stack([answer.survival, *answer.values.values(), *answer.probabilities.values()])


def started(parts, **options):
    """Return a run before its first step, and the training part's arrays."""
    method = OmiEmbed(**{**SMALL, **options})
    method.preprocessor = fit_preprocessor(parts[0], n_genes=10, n_times=5, grid="quantile")
    return method._run(), method._tensors(parts[0])


# --- the network ----------------------------------------------------------------------------------------------


@given(st.integers(0, 1000), st.floats(0.01, 3))
@settings(deadline=None, max_examples=20)
def test_the_divergence_is_that_of_torchs_normals(seed, scale):
    mean, log_variance = torch.randn(2, 6, 3, generator=torch.Generator().manual_seed(seed)) * scale
    posterior = torch.distributions.Normal(mean, (log_variance / 2).exp())
    expected = torch.distributions.kl_divergence(posterior, torch.distributions.Normal(0, 1)).mean()
    torch.testing.assert_close(divergence(mean, log_variance), expected, rtol=1e-4, atol=1e-5)


def test_the_autoencoders_loss_is_cross_entropy_of_a_draw_and_a_hundredth_of_the_divergence():
    network, x = Network(7, [6, 5], 4, KINDS, OUTPUTS).eval(), torch.rand(9, 7)
    with torch.no_grad(), torch.random.fork_rng():
        torch.manual_seed(3)
        for parameter in network.parameters():
            nn.init.normal_(parameter)  # far from the start, where means and logarithms of variances are near 0
        torch.manual_seed(3)
        mean, loss = network.autoencode(x)
        torch.manual_seed(3)
        noise = torch.randn(9, 4)
        log_variance = network.log_variance(network.encoder(x))
        share = torch.sigmoid(network.decoder(mean + noise * log_variance.exp().sqrt())).double()
        rebuilt = -(x * share.log() + (1 - x) * (1 - share).log()).mean()
        again, other = network.autoencode(x)
    assert divergence(mean, log_variance) > 1
    assert loss.item() == pytest.approx(rebuilt.item() + 0.01 * divergence(mean, log_variance).item(), rel=1e-5)
    assert torch.equal(mean, again) and loss != other  # the tasks read the mean, the decoder reads a draw


def test_layers_are_those_of_the_paper():
    network = Network(1000, [1024, 1024, 512], 128, KINDS, OUTPUTS)

    def sizes(module):
        return [tuple(layer.weight.shape) for layer in module.modules() if isinstance(layer, nn.Linear)]

    assert sizes(network.encoder) == [(1024, 1000), (1024, 1024), (512, 1024)]
    assert sizes(network.decoder) == [(512, 128), (1024, 512), (1024, 1024), (1000, 1024)]
    assert sizes(network.mean) == sizes(network.log_variance) == [(128, 512)]
    assert isinstance(network.decoder[-1], nn.Linear) and network.encoder[0][1:][0].num_features == 1024
    age, grade, survival = network.heads
    assert sizes(age) == [(128, 128), (64, 128), (1, 64)] and sizes(grade)[-1] == (3, 64)
    assert sizes(survival) == [(512, 128), (256, 512), (5, 256)]
    kinds = [{type(layer) for layer in head.modules()} for head in network.heads]
    assert nn.BatchNorm1d in kinds[0] and nn.Tanh in kinds[2] and nn.BatchNorm1d not in kinds[2]
    dropouts = [{layer.p for layer in head.modules() if isinstance(layer, nn.Dropout)} for head in network.heads]
    assert dropouts == [{0.01}, {0.2}, {0.5}]


def test_linear_layers_start_from_normal_weights_of_sd_0_02_and_no_bias():
    network = Network(100, [80], 60, KINDS, OUTPUTS)
    for layer in network.modules():
        if isinstance(layer, nn.Linear):
            assert (layer.bias == 0).all()
            if layer.weight.numel() > 1000:
                assert layer.weight.std().item() == pytest.approx(0.02, rel=0.1)


def test_a_regression_is_learned_by_absolute_error_of_those_with_a_target():
    output, target = torch.tensor([[1.0], [5.0], [-2.0]], requires_grad=True), torch.tensor([3.0, torch.nan, -1.0])
    loss = loss_of("regression", output, (target,))
    assert loss.item() == pytest.approx((2 + 1) / 2)
    loss.backward()
    assert output.grad.flatten().tolist() == [-0.5, 0.0, -0.5]
    nobody = loss_of("regression", output, (torch.full((3,), torch.nan),))
    assert nobody.item() == 0 and torch.autograd.grad(nobody, output)[0].abs().max() == 0


# --- the three phases -----------------------------------------------------------------------------------------


def test_each_phase_moves_its_own_weights_only(parts, monkeypatch):
    moved = {}
    whole = omiembed._Run._epoch

    def watched(self, phase, *arguments):
        before = {name: value.detach().clone() for name, value in self.network.named_parameters()}
        whole(self, phase, *arguments)
        after = dict(self.network.named_parameters())
        moved[phase] = {name for name, value in before.items() if not torch.equal(value, after[name])}

    monkeypatch.setattr(omiembed._Run, "_epoch", watched)
    network = fitted(parts, phases=[2, 2, 1]).network
    heads = {name for name, _ in network.named_parameters() if name.startswith("heads.")}
    everything = {name for name, _ in network.named_parameters()}
    assert moved == {1: everything - heads, 2: heads, 3: everything}


def test_the_third_phase_adds_a_thousandth_of_the_autoencoder_to_the_weighted_tasks(parts):
    run, (x, labels) = started(parts, weighting="gradnorm")
    run.balance.log_weights = torch.tensor([1.5, 1.0, 0.5]).log()
    total, losses = run._together(x, labels)
    expected = 0.001 * losses[None] + 1.5 * losses["Age"] + 1.0 * losses["Grade"] + 0.5 * losses["OS"]
    assert total.item() == pytest.approx(expected.item(), rel=1e-6)


def test_adam_is_that_of_the_paper_and_its_rate_follows_the_schedule(parts):
    run, data = started(parts, phases=[1, 1, 4])
    group = run.optimizer.param_groups[0]
    assert group["betas"] == (0.5, 0.999) and group["weight_decay"] == 1e-4
    rates = []
    for phase in (1, 2, 3, 3, 3, 3):
        rates.append(group["lr"])
        run._epoch(phase, 1, *data, 16)
    np.testing.assert_allclose(rates, 1e-3 * np.array([1, 1, 1, 1, 2 / 3, 1 / 3]))


def test_the_rate_is_constant_then_falls_over_the_last_50_epochs_of_200():
    shares = np.array([rate_share((50, 50, 100), epoch) for epoch in range(200)])
    assert (shares[:150] == 1).all() and shares[-1] == pytest.approx(1 / 51)
    np.testing.assert_allclose(np.diff(shares[149:]), -1 / 51)


def test_the_epoch_with_the_lowest_mean_validation_loss_of_the_third_phase_is_kept(parts):
    method = fitted(parts, phases=[1, 1, 12], patience=12, learning_rate=0.01)
    losses = method.history.query("phase == 3 and part == 'validation'").pivot_table("loss", "epoch", "task")
    assert set(losses) == set(KINDS) and len(losses) == 12
    assert method.best_epoch == losses.mean(axis=1).idxmin()
    assert set(losses.idxmin()) != {method.best_epoch}  # a single task would choose another


def test_patience_ends_the_third_phase_and_the_best_weights_come_back(parts, monkeypatch):
    scores, kept = iter([3.0, 2.0, *[4.0] * 50]), []
    whole = omiembed._Run._judge

    def watched(self, *arguments):
        kept.append({name: value.clone() for name, value in self.network.state_dict().items()})
        whole(self, *arguments)

    monkeypatch.setattr(omiembed, "selection_score", lambda losses, select: next(scores))
    monkeypatch.setattr(omiembed._Run, "_judge", watched)
    method = fitted(parts, phases=[1, 1, 40], patience=4)
    assert method.best_epoch == 2 and method.history.query("phase == 3")["epoch"].max() == 6
    found = method.network.state_dict()
    assert all(torch.equal(value, found[name]) for name, value in kept[1].items())
    assert not torch.equal(kept[-1]["mean.weight"], found["mean.weight"])


@pytest.mark.parametrize("phase, phases", [(1, [5, 5, 5]), (2, [0, 5, 5]), (3, [0, 0, 5])])
def test_a_loss_that_is_no_number_ends_training_in_one_sentence(parts, phase, phases):
    with pytest.raises(FloatingPointError, match=rf"^Phase {phase}, epoch \d: the \w+ loss of .* lower the learning"):
        fitted(parts, phases=phases, learning_rate=1e30)


def test_a_last_batch_of_one_patient_is_no_batch(parts):
    train = parts[0].take(parts[0].samples[:33])
    assert fitted((train, parts[1]), batch_size=16).best_epoch >= 1


# --- the weights of the tasks ---------------------------------------------------------------------------------


def test_fixed_weights_are_one(parts):
    assert fitted(parts).history["weight"].dropna().unique().tolist() == [1.0]


@pytest.mark.parametrize("phases", [[1, 376, 1], [1, 1, 100]])
def test_gradnorm_weights_are_positive_and_sum_to_the_number_of_tasks_in_all_phases(parts, phases):
    # 60 patients in batches of 16: 376 epochs of the second phase are 1,504 steps, where the original's had turned
    history = fitted(parts, phases=phases, weighting="gradnorm", patience=1000).history
    table = (
        history.query("part == 'training'").dropna(subset="weight").pivot_table("weight", ["phase", "epoch"], "task")
    )
    assert (table > 0).to_numpy().all() and len(table) == sum(phases[1:])
    np.testing.assert_allclose(table.sum(axis=1), 3, rtol=1e-5)
    assert (table.loc[2] == 1).to_numpy().all()  # nothing shared is trained, so nothing is balanced
    assert (table.loc[3].iloc[-1] != 1).all()


def test_gradnorm_sees_each_tasks_gradient_of_the_layer_of_means(parts):
    run, (x, labels) = started(parts, weighting="gradnorm")
    run.network.eval()
    seen = []
    run.balance = lambda jacobian, losses, generator: seen.append((jacobian, losses))
    hidden = run.network.encoder(x)
    mean = run.network.mean(hidden)
    losses = run._losses(mean, labels)
    run._rebalance(losses)
    seeds = [torch.autograd.grad(loss, mean, retain_graph=True)[0] for loss in losses.values()]
    expected = torch.stack([(seed.T @ hidden).flatten() for seed in seeds])  # the chain rule by hand
    torch.testing.assert_close(seen[0][0], expected)
    assert seen[0][1].tolist() == [loss.item() for loss in losses.values()] and (expected.norm(dim=1) > 0).all()


def test_gradnorm_measures_progress_from_before_the_tasks_networks_have_learned(parts, monkeypatch):
    made = []
    monkeypatch.setattr(omiembed, "GradNorm", lambda *args, **kwargs: made.append(GradNorm(*args, **kwargs)) or made[0])
    history = fitted(parts, phases=[1, 20, 1], weighting="gradnorm", learning_rate=0.01).history
    assert (made[0].alpha, made[0].learning_rate) == (1.5, 1e-3)
    target = parts[0].clinical["Age"].dropna()
    _, (_, labels) = started(parts)
    cell, event = labels["OS"]
    nothing = mtlr_nll(torch.zeros(60, 5)[cell >= 0], cell[cell >= 0], event[cell >= 0]).item()
    expected = [(target - target.mean()).abs().mean() / target.std(ddof=0), np.log(3), nothing]
    np.testing.assert_allclose(made[0].first_losses, expected, rtol=0.02)  # outputs are near 0 at first
    learned = history.query("phase == 2 and epoch == 20 and task == 'Grade'")["loss"].item()
    assert learned < 0.95 * np.log(3)


def test_for_one_task_both_weightings_are_the_same_and_nothing_else_is_answered(parts):
    one = [part.with_tasks("OS") for part in parts]
    a, b = (fitted(one, weighting=weighting).predict(parts[2]) for weighting in omiembed.WEIGHTINGS)
    np.testing.assert_array_equal(a.survival, b.survival)
    assert not a.values and not a.probabilities and a.survival.shape == (15, len(a.edges))


def test_for_many_tasks_the_weightings_differ(parts):
    a, b = (fitted(parts, weighting=weighting, phases=[1, 1, 9]).predict(parts[2]) for weighting in omiembed.WEIGHTINGS)
    assert not np.array_equal(a.survival, b.survival)


# --- the contract of a method ---------------------------------------------------------------------------------


def test_answers_have_the_labels_units_classes_and_order(parts):
    answer = fitted(parts).predict(parts[2])
    assert list(answer.samples) == list(parts[2].samples) == list(answer.probabilities["Grade"].index)
    assert list(answer.probabilities["Grade"].columns) == ["G1", "G2", "G3"]
    np.testing.assert_allclose(answer.probabilities["Grade"].sum(axis=1), 1)
    assert answer.survival.shape == (15, len(answer.edges)) and (np.diff(answer.survival) <= 0).all()
    assert (answer.survival >= 0).all() and (answer.survival <= 1).all() and not answer.calibrated
    assert np.abs(answer.values["Age"] - 60).max() < 30


def test_the_seed_decides_and_the_global_random_state_stays(parts):
    before = torch.get_rng_state()
    first = answers(fitted(parts).predict(parts[2]))
    assert torch.equal(before, torch.get_rng_state())
    torch.randn(5)
    np.testing.assert_array_equal(answers(fitted(parts).predict(parts[2])), first)
    assert not np.array_equal(answers(fitted(parts, seed=1).predict(parts[2])), first)


def test_the_order_of_patients_comes_from_the_seed_too(parts):
    assert [started(parts, seed=seed)[0].generator.initial_seed() for seed in (0, 7)] == [0, 7]


def test_labels_are_not_needed_for_an_answer(parts):
    method = fitted(parts)
    bare = replace(parts[2], clinical=pd.DataFrame(index=parts[2].samples), tasks=())
    method.network.train()  # whatever was done with the network, an answer is made without dropout
    np.testing.assert_array_equal(answers(method.predict(bare)), answers(method.predict(parts[2])))


def test_a_target_in_another_unit_changes_no_other_task(parts):
    scaled = [relabelled(part, Age=part.clinical["Age"] * 8) for part in parts]
    a, b = (fitted(some).predict(parts[2]) for some in (parts, scaled))
    np.testing.assert_array_equal(a.survival, b.survival)
    assert a.probabilities["Grade"].equals(b.probabilities["Grade"])
    np.testing.assert_allclose(b.values["Age"], 8 * a.values["Age"])


def test_a_missing_label_is_masked_in_its_task_and_its_patient_counts_for_the_others(parts):
    event = parts[0].clinical["OS_event"].copy()
    event.iloc[:20] = np.nan
    unknown = relabelled(parts[0], OS_event=event)
    late = parts[0].clinical["OS_duration"].where(event.notna(), 9e4)
    first, same, fewer = (
        answers(fitted((train, parts[1])).predict(parts[2]))
        for train in (unknown, relabelled(unknown, OS_duration=late), unknown.take(unknown.samples[20:]))
    )
    np.testing.assert_array_equal(first, same)  # a time without an event is no label
    assert not np.array_equal(first[:, -1], fewer[:, -1])  # but its patient's grade is one


def test_validation_chooses_the_epoch_and_enters_nothing_else(parts):
    reversed_labels = parts[1].clinical.iloc[::-1].set_index(parts[1].samples)
    other = replace(parts[1], clinical=reversed_labels, expression=parts[1].expression * 2)
    a, b = (fitted((parts[0], validation), patience=9) for validation in (parts[1], other))
    for found, expected in zip(a.preprocessor.state()[0].values(), b.preprocessor.state()[0].values(), strict=True):
        np.testing.assert_array_equal(found, expected)
    assert a.preprocessor.state()[1] == b.preprocessor.state()[1]
    losses = [method.history.query("part == 'training'")["loss"].to_numpy() for method in (a, b)]
    np.testing.assert_array_equal(*losses)


def test_genes_are_chosen_from_the_gene_sets(parts):
    sets = {"A": ["GENE1", "GENE2", "absent"], "B": ["GENE2", "GENE5"]}
    assert set(fitted(parts, gene_sets=sets).preprocessor.genes) == {"GENE1", "GENE2", "GENE5"}
    assert len(fitted(parts, gene_sets={}).preprocessor.genes) == 10


@pytest.mark.parametrize(
    "setting, message",
    [
        ({"scaler": "standard"}, "scaler is one of minmax, rank"),
        ({"weighting": "pcgrad"}, "weighting is one of fixed, gradnorm"),
        ({"phases": [5, 5]}, "phases are the epochs of three phases"),
        ({"phases": [5, -1, 5]}, "phases are the epochs of three phases"),
        ({"phases": [5, 5, 0]}, "phases are the epochs of three phases"),
        ({"hidden": []}, "hidden is a list"),
        ({"hidden": [64, 0]}, "hidden is a list"),
        ({"latent": 0}, "latent and patience"),
        ({"patience": 0}, "latent and patience"),
        ({"batch_size": 1}, "batch_size is 2 or more"),
        ({"learning_rate": 0.0}, "learning_rate is above 0"),
    ],
)
def test_a_setting_that_cannot_be_is_refused(setting, message):
    with pytest.raises(ValueError, match=f"^OmiEmbed: {message}"):
        OmiEmbed(**setting)


def test_parts_that_nothing_can_be_learned_from_are_refused(parts):
    train, validation, _ = parts
    bare = relabelled(validation, OS_event=np.nan)
    with pytest.raises(CohortError, match="no validation patient has a label of 'OS'"):
        fitted((train, bare))
    with pytest.raises(CohortError, match="no training patient has a label of 'Grade'"):
        fitted((relabelled(train, Grade=None), validation))
    two = train.take(train.samples[5:7]).with_tasks("Age")
    assert len(fitted((two, validation)).predict(validation).values["Age"]) == 15
    with pytest.raises(CohortError, match="No gene varies"):
        fitted((two.take(two.samples[:1]), validation))


def test_the_settings_to_tune_begin_with_the_default_and_are_plain():
    default = OmiEmbed()
    for name, values in SPACE.items():
        assert 3 <= len(values) <= 5 and json.loads(json.dumps(values)) == values
        assert json.loads(json.dumps(getattr(default, name))) == values[0]
        assert [json.loads(json.dumps(getattr(OmiEmbed(**{name: value}), name))) for value in values] == values


# --- on cohorts whose truth is known --------------------------------------------------------------------------

PLANTED = dict(n_genes=60, n_times=12, latent=16, hidden=[64], phases=(5, 5, 30), learning_rate=2e-3, patience=10)


@pytest.fixture(scope="module")
def world():
    cohort = planted(500, 60, event_rate=0.5, missing=0.05, main_effect=0.8, interaction=0.0).cohort
    return cohort.with_tasks("Age", "NHG", "PAM50", "OS")


@pytest.mark.parametrize("weighting", omiembed.WEIGHTINGS)
def test_it_beats_constants_on_every_kind_of_task(world, weighting):
    parts = split(world, seed=0)
    ours, floor = (
        method.fit(parts.train, parts.validation).predict(parts.test)
        for method in (OmiEmbed(**PLANTED, weighting=weighting), Trivial())
    )
    errors = [mean_absolute_error(*known(parts.test, "Age", answer.values["Age"])) for answer in (ours, floor)]
    assert errors[0] < 0.95 * errors[1]
    for task in ("NHG", "PAM50"):
        for measure, margin in ((accuracy, 0.05), (balanced_accuracy, 0.1)):
            hits = [measure(*known(parts.test, task, answer.probabilities[task])) for answer in (ours, floor)]
            assert hits[0] > hits[1] + margin
    assert harrell_c(parts.test.outcome(), ours.risk(1500)) > 0.6


def test_permuted_outcomes_teach_nothing(world):
    parts = split(with_permuted_outcomes(world.with_tasks("OS")), seed=0)
    answer = OmiEmbed(**PLANTED).fit(parts.train, parts.validation).predict(parts.test)
    low, high = c_interval(parts.test, answer.risk(1500))
    assert low < 0.5 < high


def test_it_runs_in_the_benchmark(tmp_path, build):
    settings = {**SMALL, "weighting": "gradnorm"}
    found = run([Method("OmiEmbed", OmiEmbed, settings)], build(90), tmp_path, [0], workers=1, progress=False)
    assert found["error"].isna().all() and {"OS", "Age", "Grade"} == set(found["task"])
