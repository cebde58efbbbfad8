import sys

from txtlib.network import import_pecanpy


def test_pecanpy_imports_and_walks_on_this_numpy(tmp_path):
    pecanpy = import_pecanpy()
    edges = tmp_path / "triangle.edg"
    edges.write_text("a\tb\t1\nb\tc\t1\nc\ta\t1\n")
    graph = pecanpy.SparseOTF(p=1, q=1, workers=1, random_state=0)
    graph.read_edg(str(edges), weighted=True, directed=False)
    walks = graph.simulate_walks(num_walks=2, walk_length=4)
    assert len(walks) == 6 and {gene for walk in walks for gene in walk} == {"a", "b", "c"}
    assert "nptyping" not in sys.modules  # the stand-in is gone
