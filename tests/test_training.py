from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors import safe_open

from txtlib import training
from txtlib.balance import plain_sum, surgery
from txtlib.cohort import load_cohort, split
from txtlib.losses import mtlr_nll
from txtlib.model import TxT
from txtlib.pcgrad import pcgrad
from txtlib.preprocess import fit_preprocessor
from txtlib.training import fit, load_trained, selection_score, shuffled_batches


@pytest.fixture(scope="module")
def parts():
    return split(load_cohort("gse7390"), seed=0)


@pytest.fixture(scope="module")
def preprocessor(parts):
    return fit_preprocessor(parts.train, n_genes=12, n_times=5, grid="quantile")


def network(preprocessor, seed=0):
    return TxT(12, preprocessor.outputs, width=8, layers=1, heads=2, readout="mean", seed=seed)


def short_fit(parts, preprocessor, **options):
    options = {"epochs": 3, "batch_size": 32, "learning_rate": 1e-3, "progress": False, **options}
    train, validation, *_ = parts
    return fit(network(preprocessor), train, validation, preprocessor, **options)


def weights(trained):
    return trained.network.state_dict()


def assert_same(a, b):
    assert all(torch.equal(value, weights(b)[name]) for name, value in weights(a).items())


def test_two_runs_agree_bit_for_bit_and_another_seed_does_not(parts, preprocessor):
    a, b, other = (short_fit(parts, preprocessor, seed=seed) for seed in (0, 0, 1))
    assert_same(a, b)
    assert a.history.drop(columns="seconds").equals(b.history.drop(columns="seconds"))
    assert not torch.equal(weights(a)["vectors"], weights(other)["vectors"])


def test_fit_leaves_the_global_random_state_alone(parts, preprocessor):
    before = torch.get_rng_state()
    short_fit(parts, preprocessor, epochs=1)
    assert torch.equal(before, torch.get_rng_state())


def test_training_fits_the_training_part(parts, preprocessor):
    trained = short_fit(parts, preprocessor.with_tasks("ER"), epochs=60, patience=60, learning_rate=1e-2)
    loss = trained.history.query("part == 'train'")["loss"].to_numpy()
    assert loss[-5:].mean() < 0.85 * loss[:5].mean()


def test_history_has_a_row_per_epoch_part_and_task(parts, preprocessor):
    trained = short_fit(parts, preprocessor)
    assert len(trained.history) == 3 * 2 * 5 and np.isfinite(trained.history["loss"]).all()
    assert len(trained.conflicts) == 3 * 10 and trained.conflicts["cosine"].between(-1, 1).all()


def test_best_epoch_is_the_one_with_the_lowest_survival_loss_by_default(parts, preprocessor):
    trained = short_fit(parts, preprocessor, epochs=6)
    scores = trained.history.query("part == 'validation' and task == 'DM'").set_index("epoch")["loss"]
    assert trained.best_epoch == scores.idxmin()


@pytest.mark.parametrize("select, tasks", [("Age", ["Age"]), ("all", ["Age", "Size", "Grade", "ER", "DM"])])
def test_best_epoch_follows_the_declared_criterion(parts, preprocessor, select, tasks):
    trained = short_fit(parts, preprocessor, epochs=6, select=select)
    rows = trained.history.query("part == 'validation' and task in @tasks")
    assert trained.best_epoch == rows.groupby("epoch")["loss"].mean().idxmin()


def test_kept_weights_are_those_of_the_best_epoch(parts, preprocessor):
    trained = short_fit(parts, preprocessor, epochs=6)
    again = short_fit(parts, preprocessor, epochs=trained.best_epoch)
    assert_same(trained, again)


def test_patience_ends_training(parts, preprocessor, monkeypatch):
    scores = iter([3.0, 2.0, *[4.0] * 50])
    monkeypatch.setattr(training, "selection_score", lambda losses, select: next(scores))
    trained = short_fit(parts, preprocessor, epochs=50, patience=4)
    assert trained.best_epoch == 2 and trained.history["epoch"].max() == 6


def test_the_file_of_a_network_says_that_training_was_interrupted(parts, preprocessor, tmp_path):
    for interrupted in (False, True):
        replace(short_fit(parts, preprocessor, epochs=1), interrupted=interrupted).save(tmp_path / "model.safetensors")
        assert load_trained(tmp_path / "model.safetensors").interrupted == interrupted


def test_saved_and_loaded_it_predicts_the_same(parts, preprocessor, tmp_path):
    trained = short_fit(parts, preprocessor)
    trained.save(tmp_path / "model.safetensors")
    loaded = load_trained(tmp_path / "model.safetensors")
    a, b = trained.predict(parts.test), loaded.predict(parts.test)
    np.testing.assert_array_equal(a.survival, b.survival)
    np.testing.assert_array_equal(a.values["Age"], b.values["Age"])
    assert a.probabilities["Grade"].equals(b.probabilities["Grade"])
    assert loaded.best_epoch == trained.best_epoch and loaded.conflicts.equals(trained.conflicts)
    with safe_open(tmp_path / "model.safetensors", "pt") as file:  # not a pickle
        assert "network.vectors" in file.keys()  # noqa: SIM118
    assert [path.name for path in tmp_path.iterdir()] == ["model.safetensors"]


def test_a_network_without_a_survival_task_is_saved_too(parts, tmp_path):
    train, validation, test = (part.with_tasks("Age") for part in parts)
    trained = short_fit((train, validation), fit_preprocessor(train, n_genes=12), epochs=1)
    trained.save(tmp_path / "model.safetensors")
    loaded = load_trained(tmp_path / "model.safetensors").predict(test)
    np.testing.assert_array_equal(loaded.values["Age"], trained.predict(test).values["Age"])


def test_predictions_are_in_the_labels_units(parts, preprocessor):
    answer = short_fit(parts, preprocessor, epochs=30, learning_rate=3e-3, select="Age").predict(parts.test)
    assert answer.values["Age"].mean() == pytest.approx(parts.train.clinical["Age"].mean(), abs=8)
    assert list(answer.probabilities["Grade"].columns) == ["G1", "G2", "G3"]
    np.testing.assert_allclose(answer.probabilities["Grade"].sum(axis=1), 1)
    assert ((answer.risk(1825) >= 0) & (answer.risk(1825) <= 1)).all()


def test_one_new_patient_without_labels_can_be_predicted(parts, preprocessor):
    patient = parts.test.take(parts.test.samples[:1])
    bare = type(patient)(patient.expression, patient.clinical[[]], (), {})
    trained = short_fit(parts, preprocessor, epochs=1)
    np.testing.assert_allclose(trained.predict(bare).survival, trained.predict(parts.test).survival[:1], atol=1e-4)


def test_a_patient_without_labels_changes_no_gradient(parts, preprocessor):
    # with batch norm the patient still takes part in the batch statistics, so compare the losses' own gradients
    encoded = preprocessor.encode(parts.train)
    x, labels = training._tensors(encoded, torch.device("cpu"))
    net = network(preprocessor).eval()
    run = training.Run(net, {task.name: task.kind for task in preprocessor.tasks}, 1e-3, surgery, torch.Generator())
    blank = {name: tuple(array.clone() for array in arrays) for name, arrays in labels.items()}
    for name, (first, *_) in blank.items():
        first[0] = torch.nan if run.kinds[name] == "regression" else -1
    rest = {name: tuple(array[1:] for array in arrays) for name, arrays in labels.items()}
    for with_blank, without in zip(run.losses(net(x), blank), run.losses(net(x[1:]), rest), strict=True):
        torch.testing.assert_close(with_blank, without)


def test_shared_gradient_is_the_combination_and_heads_follow_their_own_task(parts, preprocessor):
    x, labels = training._tensors(preprocessor.encode(parts.train), torch.device("cpu"))
    net = network(preprocessor).eval()
    run = training.Run(
        net, {task.name: task.kind for task in preprocessor.tasks}, 0.0, surgery, torch.Generator().manual_seed(3)
    )
    expected = []
    for loss in run.losses(net(x), labels):
        net.zero_grad()
        loss.backward(retain_graph=True)
        expected.append(torch.cat([p.grad.flatten() for p in net.shared_parameters()]))
    own = {name: p.grad.clone() for name, p in net.head("DM").named_parameters()}  # DM is the last task
    run._step(x, labels)
    combined = pcgrad(torch.stack(expected), torch.Generator().manual_seed(3))
    ours = torch.cat([p.grad.flatten() for p in net.shared_parameters()])
    torch.testing.assert_close(ours, combined, atol=1e-6, rtol=1e-4)
    for name, parameter in net.head("DM").named_parameters():
        torch.testing.assert_close(parameter.grad, own[name])


@pytest.mark.parametrize("n, size, expected", [(9, 4, [4, 5]), (8, 4, [4, 4]), (10, 4, [4, 4, 2]), (1, 4, [1])])
def test_no_batch_holds_a_single_patient_if_it_can_be_helped(n, size, expected):
    batches = shuffled_batches(n, size, torch.Generator().manual_seed(0))
    assert [len(batch) for batch in batches] == expected
    assert sorted(torch.cat(batches).tolist()) == list(range(n))


def test_selection_over_all_tasks_is_their_mean():
    assert selection_score({"a": 1.0, "b": 3.0}, "all") == 2.0 and selection_score({"a": 1.0, "b": 3.0}, "b") == 3.0


def test_unknown_criterion_and_single_patient_are_refused(parts, preprocessor):
    with pytest.raises(ValueError, match="select is one of the tasks Age, Size, Grade, ER, DM, or 'all'"):
        short_fit(parts, preprocessor, select="OS")
    lone = parts.train.take(parts.train.samples[:1])
    with pytest.raises(ValueError, match="needs two or more"):
        fit(network(preprocessor), lone, parts.validation, preprocessor, epochs=1, progress=False)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU on this machine")
def test_gpu_agrees_with_cpu(parts, preprocessor):
    cpu, gpu = (short_fit(parts, preprocessor, epochs=1, device=device) for device in ("cpu", "cuda"))
    np.testing.assert_allclose(gpu.predict(parts.test).survival, cpu.predict(parts.test).survival, atol=0.05)


def test_constant_losses_are_those_of_the_best_constant(parts, preprocessor):
    losses = training.constant_losses(parts.train, parts.validation, preprocessor)
    age = preprocessor.encode(parts.validation).labels["Age"][0]
    assert losses["Age"] == pytest.approx((age**2).mean(), rel=1e-3)  # the training mean is 0 on the target's scale
    shares = parts.train.clinical["ER"].value_counts(normalize=True)
    expected = -np.log(shares[parts.validation.clinical["ER"]]).mean()
    assert losses["ER"] == pytest.approx(expected, rel=1e-3)
    # one number for all under N-MTLR: the mass of each cell, which an independent search must find too
    cell, event = (torch.from_numpy(part) for part in preprocessor.encode(parts.train).labels["DM"])
    psi = torch.zeros(5, requires_grad=True)
    adam = torch.optim.Adam([psi], 0.05)
    for _ in range(1500):
        adam.zero_grad()
        mtlr_nll(psi.expand(len(cell), -1), cell, event).backward()
        adam.step()
    cell, event = (torch.from_numpy(part) for part in preprocessor.encode(parts.validation).labels["DM"])
    assert losses["DM"] == pytest.approx(mtlr_nll(psi.detach().expand(len(cell), -1), cell, event).item(), rel=1e-3)


def test_the_order_of_the_tasks_does_not_decide_the_kept_epoch(parts, preprocessor):
    # D1: the released code follows whichever task comes first
    epochs = []
    for names in (["Age", "Size", "Grade", "ER", "DM"], ["DM", "ER", "Grade", "Size", "Age"]):
        ordered = preprocessor.with_tasks(*names)
        net = TxT(12, ordered.outputs, width=8, layers=1, heads=2, dropout=0.0, readout="mean")
        net.load_state_dict(network(preprocessor).state_dict())
        options = dict(epochs=3, batch_size=64, learning_rate=3e-3, combine=plain_sum, progress=False)
        epochs.append(fit(net, parts.train, parts.validation, ordered, **options).best_epoch)
    assert epochs == [3, 3]  # by far; Age's lowest is epoch 1


def test_a_task_in_other_units_changes_no_other_task(parts):
    # D2: upstream, years and millimetres enter the loss raw; a power of two keeps the arithmetic exact
    answers = []
    for factor in (1.0, 8.0):
        train, validation, test = (
            replace(part, clinical=part.clinical.assign(Age=part.clinical["Age"] * factor)) for part in parts
        )
        fitted = fit_preprocessor(train, n_genes=12, n_times=5, grid="quantile")
        trained = fit(network(fitted), train, validation, fitted, epochs=3, learning_rate=1e-3, progress=False)
        answers.append(trained.predict(test))
    np.testing.assert_array_equal(answers[0].survival, answers[1].survival)
    np.testing.assert_array_equal(answers[0].values["Size"], answers[1].values["Size"])
    np.testing.assert_array_equal(answers[0].values["Age"] * 8, answers[1].values["Age"])


def test_a_validation_part_without_the_selecting_label_is_refused(parts, preprocessor):
    bare = parts.validation.clinical.assign(Age=np.nan)
    validation = replace(parts.validation, clinical=bare)
    for select in ("Age", "all"):
        with pytest.raises(ValueError, match="no validation patient has a label of 'Age'"):
            fit(network(preprocessor), parts.train, validation, preprocessor, select=select, progress=False)
    options = dict(epochs=1, select="DM", progress=False)
    assert fit(network(preprocessor), parts.train, validation, preprocessor, **options).best_epoch == 1


def test_an_unknown_precision_is_refused(parts, preprocessor):
    with pytest.raises(ValueError, match="float32, bfloat16, not 'half'"):
        short_fit(parts, preprocessor, precision="half")


def test_bfloat16_trains_and_is_reproducible(parts, preprocessor):
    low, again = (short_fit(parts, preprocessor, precision="bfloat16") for _ in range(2))
    assert all(torch.equal(value, weights(again)[name]) for name, value in weights(low).items())
    assert any(
        not torch.equal(value, weights(low)[name]) for name, value in weights(short_fit(parts, preprocessor)).items()
    )
    assert low.history.loss.max() < 10


def test_batches_of_one_are_refused(parts, preprocessor):
    with pytest.raises(ValueError, match="batch_size is 1"):
        short_fit(parts, preprocessor, batch_size=1)


def test_no_epoch_at_all_is_refused(parts, preprocessor):
    with pytest.raises(ValueError, match="epochs is 0"):
        short_fit(parts, preprocessor, epochs=0)


def test_patients_who_differ_by_rounding_alone_tie(parts):
    preprocessor = fit_preprocessor(parts.train, n_genes=8, n_times=5, grid="quantile")
    noise = 1e-7 * np.arange(len(parts.test))[:, None]
    outputs = {task: 0.3 + noise * np.ones((1, size)) for task, size in preprocessor.outputs.items()}
    answer = training.decode(outputs, parts.test, preprocessor)
    assert np.ptp(answer.values["Age"]) == 0 and np.ptp(answer.risk(1825)) == 0
    outputs = {task: raw + noise * 1e4 for task, raw in outputs.items()}
    assert len(np.unique(training.decode(outputs, parts.test, preprocessor).values["Age"])) == len(parts.test)
