def test_x(lineage):
    print(lineage.runs)
    print((lineage.runs/"gba/alpha/samples.jsonl").read_text())
