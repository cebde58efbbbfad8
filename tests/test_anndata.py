import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from txtlib.cohort import Cohort, CohortError, load_cohort

anndata = pytest.importorskip("anndata")
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")  # of anndata's own making


@pytest.fixture(scope="module")
def cohort():
    return load_cohort("gse7390")


def assert_same(a, b):
    pd.testing.assert_frame_equal(a.expression, b.expression, check_names=False)
    pd.testing.assert_frame_equal(a.clinical, b.clinical, check_names=False)
    assert a.tasks == b.tasks and a.name == b.name


def test_there_and_back(cohort):
    assert_same(Cohort.from_anndata(cohort.to_anndata()), cohort)


def test_through_an_h5ad_file(cohort, tmp_path):
    adata = cohort.to_anndata()
    adata.write_h5ad(tmp_path / "mine.h5ad")
    loaded = load_cohort(tmp_path / "mine.h5ad")
    assert_same(loaded, cohort)
    assert loaded.about == cohort.about


def test_sparse_expression_and_tasks_as_a_table(cohort):
    adata = cohort.to_anndata()
    tasks = pd.DataFrame({"name": ["Age"], "task": ["regression"]})
    bare = anndata.AnnData(sparse.csr_matrix(adata.X), obs=adata.obs, var=adata.var)
    loaded = Cohort.from_anndata(bare, tasks)
    np.testing.assert_array_equal(loaded.expression, cohort.expression)
    assert [task.name for task in loaded.tasks] == ["Age"]


def test_categorical_labels_are_classes(cohort):
    adata = cohort.to_anndata()
    adata.obs["Grade"] = adata.obs["Grade"].astype("category")
    assert_same(Cohort.from_anndata(adata), cohort)


def test_bad_input_is_met_at_the_same_door(cohort, tmp_path):
    adata = cohort.to_anndata()
    adata.X[3, 2] = np.inf
    with pytest.raises(CohortError, match=r"TRANSBIG .GSE7390.: gene '201068_s_at' is infinite in TRANSBIG-004"):
        Cohort.from_anndata(adata)
    with pytest.raises(CohortError, match="no tasks; give a table"):
        Cohort.from_anndata(anndata.AnnData(np.ones((2, 2))))
    with pytest.raises(CohortError, match="is missing"):
        load_cohort(tmp_path / "nowhere.h5ad")
    (tmp_path / "garbage.h5ad").write_text("no")
    with pytest.raises(CohortError, match="cannot be read as AnnData"):
        load_cohort(tmp_path / "garbage.h5ad")
