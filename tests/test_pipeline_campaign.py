"""Campaign files: what they mean, and that every mistake in them is named at once."""

import pickle
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.campaign import (
    Campaign,
    CampaignError,
    bundled_workflows,
    campaign_fields,
    load_campaign,
    parse_campaign,
)
from pipeline.campaign_errors import show_key, show_value

FLOW = """
name = "small"
description = "two labels on every axis"
model = "phase_retrieval"
entropy = 7
[parameters]
a = 0.01
[grid]
alpha = [2.5, 3]
N = [128, 64]
seeds = 5
inits = ["spectral", "random"]
[dynamics]
method = "flow"
T = 50
"""
DESCENT = ("dynamics.method=descent", "dynamics.learning_rate=0.005")
SPIKED = (
    "model=spiked_matrix_tensor",
    "parameters={delta_p=1.0}",
    "grid.alpha=",
    "grid.snr=[2.0]",
    'grid.inits=["random"]',
)
FULL_LINE = re.compile(
    r"(override .*|[\w.\[\]\"]+): (expected|unknown key).*, got .*; .+", re.DOTALL
)


def read(*overrides: str) -> Campaign:
    return parse_campaign(FLOW, source="test", overrides=overrides)


def problems_of(*overrides: str, text: str = FLOW) -> tuple[str, ...]:
    """Complaints about the small campaign with some of its values replaced."""
    with pytest.raises(CampaignError) as caught:
        parse_campaign(text, source="test", overrides=overrides)
    for line in caught.value.problems:
        assert FULL_LINE.fullmatch(line), line
    return caught.value.problems


# What a campaign means


def test_labels_measurements_and_defaults() -> None:
    campaign = read()
    grid = campaign.grid_labels()
    assert (grid.control, grid.values, grid.N) == ("alpha", (2.5, 3.0), (128, 64))
    assert (grid.seeds, grid.inits) == ((0, 1, 2, 3, 4), ("spectral", "random"))
    assert all(isinstance(alpha, float) for alpha in grid.values)
    measurements = campaign.measurements()
    assert measurements.dtype == np.int64
    np.testing.assert_array_equal(measurements, [[320, 160], [384, 192]])
    dynamics = campaign.dynamics
    assert (dynamics.tolerance, dynamics.learning_rate) == (1e-2, None)
    assert (dynamics.constrained_time, dynamics.dtype) == (200.0, "float32")


def test_halves_of_a_measurement_round_to_even() -> None:
    np.testing.assert_array_equal(
        read("grid.alpha=[0.5, 1.5]", "grid.N=[3, 5]").measurements(), [[2, 2], [4, 8]]
    )


def test_evenly_spaced_alpha_equals_its_list() -> None:
    spaced = read("grid.alpha={start = 0.1, stop = 0.5, num = 5}")
    assert spaced == read("grid.alpha=[0.1, 0.2, 0.3, 0.4, 0.5]")
    assert read("grid.alpha={start = 2, stop = 3, num = 1}").grid.alpha == (2.0,)


def test_a_spectrum_has_times_and_bins() -> None:
    assert read().spectrum is None
    assert read().groups() == {}
    campaign = read(
        "spectrum={times = [0.0, 5], range = [-1, 3], bins = 4}", "trajectory.times=[1]"
    )
    assert campaign.groups() == {
        "trajectory": {"time": (1.0,)},
        "spectrum": {"snapshot": (0.0, 5.0), "eigenvalue": (-0.5, 0.5, 1.5, 2.5)},
    }
    assert campaign.all_times() == (0.0, 1.0, 5.0)
    assert campaign.spectrum is not None
    assert campaign.spectrum.edges().tolist() == [-1.0, 0.0, 1.0, 2.0, 3.0]
    assert {k: v for k, v in campaign.physics().items() if k.startswith("spectrum")} == {
        "spectrum.times": [0.0, 5.0],
        "spectrum.range": [-1.0, 3.0],
        "spectrum.bins": 4,
    }
    assert parse_campaign(campaign.to_toml(), source="back") == campaign


def test_labels_have_ten_digits() -> None:
    assert read("grid.alpha=[0.30000000000000004, 2.00000000001]").grid.alpha == (0.3, 2.0)


def test_a_campaign_cannot_be_changed() -> None:
    campaign = read()
    with pytest.raises(ValueError, match="frozen"):
        campaign.grid.seeds = 6
    assert pickle.loads(pickle.dumps(campaign)) == campaign


def test_physics_is_flat_and_leaves_grid_and_texts_out() -> None:
    physics = read().physics()
    assert physics == {
        "model": "phase_retrieval",
        "entropy": 7,
        "instances": "auto",
        "parameters.a": 0.01,
        "dynamics.method": "flow",
        "dynamics.T": 50.0,
        "dynamics.tolerance": 0.01,
        "dynamics.constrained_time": 200.0,
        "dynamics.dtype": "float32",
    }
    other = read("name=other", "description=x", "grid.seeds=9", "grid.N=[32]", "grid.alpha=[4]")
    assert other.differences(physics) == []


def test_differences_name_key_and_both_values() -> None:
    assert read("dynamics.T=60", *DESCENT).differences(read().physics()) == [
        "dynamics.method: 'flow' in the store, 'descent' in the campaign",
        "dynamics.T: 50.0 in the store, 60.0 in the campaign",
        "dynamics.learning_rate: nothing in the store, 0.005 in the campaign",
        "dynamics.tolerance: 0.01 in the store, nothing in the campaign",
    ]


def test_replicas_are_an_axis_where_they_are_asked_for() -> None:
    assert read().grid_labels().replicas is None
    campaign = read("grid.replicas=3")
    assert campaign.grid_labels().shape == (2, 2, 5, 2, 3)
    assert campaign.physics() == read().physics() | {"grid.replicas": 3}
    assert campaign.prune(1).grid_labels().shape == (1, 1, 1, 1, 3)
    assert campaign.differences(read().physics()) == [
        "grid.replicas: nothing in the store, 3 in the campaign"
    ]
    assert read("grid.replicas=1").grid_labels().shape == (2, 2, 5, 2, 1)


def test_a_list_of_constants_is_an_axis_that_can_grow() -> None:
    assert read().constants() == ()
    campaign = read("parameters.a=[10, 0.1, 1.0]")
    assert campaign.constants() == (("a", (10.0, 0.1, 1.0)),)
    assert campaign.grid_labels().shape == (3, 2, 2, 5, 2)
    assert campaign.measurements().shape == (2, 2)
    assert campaign.prune(2).grid_labels().shape == (2, 2, 2, 2, 2)
    assert parse_campaign(campaign.to_toml(), source="back") == campaign
    more = read("parameters.a=[0.01]")
    assert more.differences(campaign.physics()) == []
    assert read().differences(campaign.physics()) == [
        "parameters.a: 'an axis' in the store, 0.01 in the campaign"
    ]
    assert more.differences(read().physics()) == [
        "parameters.a: 0.01 in the store, 'an axis' in the campaign"
    ]


def test_constants_count_among_the_runs() -> None:
    (problem,) = problems_of("grid.seeds=1000000", "grid.replicas=10", "parameters.a=[1, 2, 3]")
    assert "x 10 replicas x 24 labels of (a, alpha, N, init) = 240000000; use" in problem


def test_a_trajectory_has_times_and_what_is_wanted_of_them() -> None:
    assert read().trajectory is None
    section = read("trajectory.times=[0, 0.1, 5, 50]").trajectory
    assert section is not None
    assert (section.times, section.hessian, section.gain) == ((0.0, 0.1, 5.0, 50.0), True, False)
    options = ("trajectory.hessian=false", "trajectory.gain=true")
    campaign = read("trajectory.times={start = 0.1, stop = 10, num = 5}", *options)
    assert campaign.physics() == read().physics() | {
        "trajectory.times": [0.1, 0.316227766, 1.0, 3.16227766, 10.0],
        "trajectory.hessian": False,
        "trajectory.labels": True,
        "trajectory.gain": True,
    }
    assert campaign.prune(1).trajectory == campaign.trajectory


@pytest.mark.parametrize(
    ("store", "campaign", "line"),
    [
        ("[1, 2]", "[1, 3, 4]", "[2.0] and 1 shared in the store, [3.0, 4.0] and 1 shared in the "),
        ("[1, 2]", "[1, 2, 4]", "2 shared in the store, [4.0] and 2 shared in the campaign"),
        ("", "[1, 2]", "nothing in the store, [1.0, 2.0] in the campaign"),
        (
            "{start=1, stop=50, num=40}",
            "",
            "[1.0, 1.105511675, 1.222156064, 1.351107797, 1.493665444, 1.651264587, ...] in the st",
        ),
    ],
)
def test_differences_of_times_are_told_apart(store: str, campaign: str, line: str) -> None:
    stored = read(f"trajectory.times={store}") if store else read()
    mine = read(f"trajectory.times={campaign}") if campaign else read()
    told = mine.differences(stored.physics())
    assert told[0].startswith(f"trajectory.times: {line}")
    assert len(told) == (1 if store and campaign else 4)  # with hessian, labels, gain


@pytest.mark.parametrize(
    "overrides",
    [
        (),
        DESCENT,
        ("grid.replicas=3", "trajectory.times={start=1e-3,stop=50,num=7}", "trajectory.gain=true"),
        ("dynamics.tolerance=1e-5", "dynamics.dtype=float32", "grid.alpha=[1e-05, 0.1]"),
        ("grid.alpha={start = 1.5, stop = 6, num = 7}", "description=''"),
        ("entropy=9223372036854775807", r'description="\"quotes\", \t, \\, α½ and [red]"'),
    ],
)
def test_canonical_text_reads_back_equal(overrides: tuple[str, ...]) -> None:
    campaign = read("grid.N=[100000, 200000]", *overrides)
    again = parse_campaign(campaign.to_toml(), source="its own text")
    assert again == campaign
    assert again.to_toml() == campaign.to_toml()


def test_prune_keeps_the_physics_and_the_smallest_sizes() -> None:
    small = read().prune(1)
    grid = small.grid_labels()
    assert (grid.values, grid.N, grid.seeds, grid.inits) == ((2.5,), (64,), (0,), ("spectral",))
    assert small.physics() == read().physics()
    assert read().prune(9).grid_labels().shape == read().grid_labels().shape
    with pytest.raises(ValueError, match=r"at least 1, got 0"):
        read().prune(0)


# Where campaigns come from


def test_every_bundled_workflow_is_valid_and_called_as_its_file() -> None:
    workflows = bundled_workflows()
    assert "quickstart" in workflows
    for name, description in workflows.items():
        assert load_campaign(name).name == name
        assert description


def test_quickstart_is_the_study_of_the_readme() -> None:
    campaign = load_campaign("quickstart")
    assert campaign.parameters.a == 1.0
    assert campaign.grid.N == (64, 128, 256)
    assert len(campaign.grid.alpha) == 10
    assert (min(campaign.grid.alpha), max(campaign.grid.alpha)) == (1.5, 6.0)
    assert set(campaign.grid.inits) == {"random", "spectral", "constrained"}
    assert campaign.grid.seeds == 48
    assert campaign.dynamics.T == 300.0


def test_a_name_is_the_workflow_and_a_path_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("quickstart").write_text(FLOW, encoding="utf-8")
    assert load_campaign("quickstart").name == "quickstart"
    assert load_campaign("./quickstart").name == "small"
    assert load_campaign(Path("quickstart")).name == "small"
    assert load_campaign(tmp_path / "quickstart", ["grid.seeds=3"]).grid.seeds == 3


def test_marks_and_line_ends_of_other_systems_are_read(tmp_path: Path) -> None:
    file = tmp_path / "dos.toml"
    file.write_bytes(b"\xef\xbb\xbf" + FLOW.replace("\n", "\r\n").encode())
    assert load_campaign(file) == read()


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("quikstart", "which is neither; did you mean quickstart? bundled are "),
        ("nowhere/else.toml", "which is neither; bundled are "),
        (".", "got Is a directory"),
        ("a\0b", "got embedded null byte"),
    ],
)
def test_what_cannot_be_read_is_said(source: str, said: str) -> None:
    with pytest.raises(CampaignError) as caught:
        load_campaign(source)
    (problem,) = caught.value.problems
    assert problem.startswith("expected ")
    assert said in problem


def test_a_file_that_is_no_text_is_said(tmp_path: Path) -> None:
    file = tmp_path / "binary.toml"
    file.write_bytes(b'name = "\xff"')
    with pytest.raises(CampaignError, match=r"UTF-8, got invalid start byte at byte 8; convert"):
        load_campaign(file)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('name = "x"\nT = = 3\n', r"line 2, column 5"),
        ("x = [", r"column 6|end of document"),
        ("x = " + "9" * 5000, r"digits"),
        ("x = " + "[" * 5000, r"nested"),
        ("x = 2020-02-31", r"date"),
    ],
)
def test_what_is_not_toml_is_said(text: str, said: str) -> None:
    with pytest.raises(CampaignError, match=said):
        parse_campaign(text, source="test")


# Overrides


def test_overrides_are_toml_values_or_bare_words() -> None:
    campaign = read(
        "grid.N=[32]", " dynamics.T = 1e3 ", "dynamics.dtype=float32", 'description="two words"'
    )
    assert campaign.grid.N == (32,)
    assert campaign.dynamics.T == 1000.0
    assert campaign.dynamics.dtype == "float32"
    assert campaign.description == "two words"


def test_an_empty_override_removes_the_key() -> None:
    text = FLOW + "tolerance = 1e-3\n"
    assert parse_campaign(text, source="t", overrides=["dynamics.tolerance="]) == read()
    assert parse_campaign(text, source="t", overrides=[*DESCENT, "dynamics.tolerance="]) == read(
        *DESCENT
    )


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("grid.seeds", "override: expected KEY=VALUE, got 'grid.seeds'; write as in"),
        ("=5", "override: expected KEY=VALUE, got '=5'; write as in"),
        ("grid..seeds=5", "override: expected KEY=VALUE, got 'grid..seeds=5'; write as in"),
        ("name=two words", "override name: expected a TOML value, got 'two words'; quote"),
        ("grid.seeds=1\nentropy=2", "override grid.seeds: expected a TOML value, got '1\\nentropy"),
        ("grid.N=" + "[" * 5000, "override grid.N: expected a TOML value, got '[[["),
        ("grid.alpha.num=3", "override grid.alpha.num: expected a table at grid.alpha, got [2.5"),
        ("extra.x=3", "extra: unknown key, got {'x': 3}; "),
    ],
)
def test_an_override_that_fits_nowhere_is_said(override: str, said: str) -> None:
    (problem,) = problems_of(override)
    assert problem.startswith(said)


# Mistakes


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("name=", 'name: expected a name to call files by.*, got nothing; .*name = "quickstart"'),
        ("name='a/b'", r"name: .*letters, digits.*, got 'a/b'"),
        ("name=''", r"name: .*, got ''"),
        ("description='''a\nb'''", r"description: expected one line of text, got 'a\\nb'"),
        (
            "model=spiked",
            'model: expected "phase_retrieval" or "spiked_matrix_tensor", got \'spiked\'',
        ),
        ("entropy=-1", "entropy: expected an integer from 0 .*, got -1; "),
        ("entropy=9223372036854775808", "entropy: .*, got 9223372036854775808; "),
        ("entropy=1.0", r"entropy: .*, got 1\.0; "),
        ("parameters.a=0", "parameters.a: expected .* above 0, .*, got 0; .* a = 1.0"),
        ("parameters.a=true", "parameters.a: .*, got True; "),
        ("parameters.a=[]", r"parameters.a: .* or a list of such, each once, got \[\]; "),
        ("parameters.a=[1.0, 0.0]", r"parameters.a: .*, got \[1.0, 0.0\]; "),
        ("parameters.a=[1.0, 1]", r"parameters.a: .*, got \[1.0, 1\]; "),
        ("parameters.a=[[1.0]]", r"parameters.a: .*, got \[\[1.0\]\]; "),
        ("parameters.a=nan", "parameters.a: .*, got nan; "),
        ("parameters.a=inf", "parameters.a: .*, got inf; "),
        ("parameters=3", r"parameters: expected a section with a, got 3; .*\[parameters\]"),
        ("grid=", r"grid: expected a section with alpha, .*, got nothing; write"),
        ("grid=[]", r"grid: expected a section with alpha, .*, got \[\]; write"),
        ("grid.alpha=2.5", r"grid\.alpha: expected numbers above 0 .*, got 2\.5; .*alpha = \["),
        ("grid.alpha=[2, 0]", r"grid\.alpha\[1\]: expected numbers above 0 .*, got 0; "),
        ("grid.alpha=[true]", r"grid\.alpha\[0\]: .*, got True; "),
        ("grid.alpha=['3']", r"grid\.alpha\[0\]: .*, got '3'; "),
        ("grid.alpha=[nan]", r"grid\.alpha\[0\]: .*, got nan; "),
        ("grid.alpha=[1e7]", r"grid\.alpha\[0\]: .*, got 10000000\.0; "),
        ("grid.alpha=[]", r"grid\.alpha: expected one label or more, got \[\]; .* alpha = \["),
        ("grid.alpha=[2, 3, 2.00000000001]", r"grid\.alpha: expected each .*, got \[2\.0\] more"),
        (
            "grid.alpha=[0.001, 0.007, 3]",
            r"grid\.alpha: expected M .*, got M = 0 .* \[0\.001, 0\.007\] with N = 64; .*0\.0078",
        ),
        ("grid.alpha={start=1,stop=2,num=0}", r"grid\.alpha\.num: .* from 1 to .*, got 0; .*num ="),
        ("grid.alpha={start=1,stop=1,num=2}", r"grid\.alpha: expected each label once, got \[1\.0"),
        ("grid.alpha={start=1,num=2}", r"grid\.alpha\.stop: expected the last .*, got nothing; "),
        (
            "grid.alpha={start=1,stop=2,num=2,step=1}",
            r"grid\.alpha\.step: unknown key, got 1; did you mean grid\.alpha\.stop\?",
        ),
        ("grid.N=64", r"grid\.N: expected integers from 2 .*, got 64; .* N = \[64, 128\]"),
        ("grid.N=[64, 1]", r"grid\.N\[1\]: .*, got 1; "),
        ("grid.N=[64.0]", r"grid\.N\[0\]: .*, got 64\.0; "),
        ("grid.N=[64, 64]", r"grid\.N: expected each label once, got \[64\] more than once; keep"),
        ("grid.seeds=0", r"grid\.seeds: expected how many seeds, .*, got 0; .* seeds = 48"),
        ("grid.seeds=true", r"grid\.seeds: .*, got True; "),
        ("grid.seeds=[0, 1]", r"grid\.seeds: .*, got \[0, 1\]; "),
        ("grid.inits=['spectrl']", r"grid\.inits\[0\]: expected any of .*, got 'spectrl'; "),
        ("grid.inits=['random', 'random']", r"grid\.inits: expected each .* \['random'\] more"),
        ("grid.replicas=0", r"grid\.replicas: expected how many starts .*, got 0; .*replicas = 4"),
        ("grid.replicas=true", r"grid\.replicas: .*, got True; "),
        ("grid.replicas=2.0", r"grid\.replicas: .*, got 2\.0; "),
        ("replicas=3", r"replicas: unknown key, got 3; replicas belongs in \[grid\]"),
        ("trajectory=[1]", r"trajectory: expected a section with times, got \[1\]; write"),
        ("trajectory={}", r"trajectory\.times: expected times from 0 to T .*, got nothing; write"),
        ("trajectory.hessian=false", r"trajectory\.times: .*, got nothing; write for example tim"),
        ("trajectory.times=3", r"trajectory\.times: expected times from 0 .*, got 3; .*times = {"),
        ("trajectory.times=[]", r"trajectory\.times: expected one time or more, got \[\]; write"),
        ("trajectory.times=[1, -1]", r"trajectory\.times\[1\]: expected times .*, got -1; "),
        ("trajectory.times=[nan]", r"trajectory\.times\[0\]: .*, got nan; "),
        ("trajectory.times=[true]", r"trajectory\.times\[0\]: .*, got True; "),
        (
            "trajectory.times=[1, 3, 2]",
            r"trajectory\.times: .* ascend, .*, got \[2\.0\] not .*sort",
        ),
        ("trajectory.times=[1, 1]", r"trajectory\.times: .* each once, got \[1\.0\] not after"),
        (
            "trajectory.times=[1, 50.1, 60]",
            r"trajectory\.times: expected times up to T = 50, got \[50\.1, 60\.0\]; leave .*dynam",
        ),
        (
            "trajectory.times={start=0,stop=5,num=3}",
            r"trajectory\.times\.start: expected the first time, .*, got 0; .*start = 0.1",
        ),
        ("trajectory.times={start=5,stop=1,num=3}", r"trajectory\.times: expected times that asc"),
        ("trajectory.times={start=1,stop=2,num=1001}", r"trajectory\.times\.num: .*, got 1001; "),
        ("trajectory.times={start=1,stop=99,num=2}", r"trajectory\.times: .* T = 50, got \[99\.0"),
        (
            "trajectory={times=[1],gian=true}",
            r"trajectory\.gian: unknown key, got True; did you mean trajectory\.gain\?",
        ),
        ("trajectory={times=[1],gain=1}", r"trajectory\.gain: .* true or false, got 1; .*gain = "),
        (
            "spectrum={times=[1],range=[1,2]}",
            r"spectrum\.bins: expected how many .*, got nothing; ",
        ),
        (
            "spectrum={times=[1],range=[2,2],bins=3}",
            r"spectrum\.range: .* ascend.*, got \[2, 2\]; ",
        ),
        ("spectrum={times=[1],range=[2],bins=3}", r"spectrum\.range\[1\]: .*two finite numbers"),
        ("spectrum={times=[1],range=[0,inf],bins=3}", r"spectrum\.range\[1\]: .*, got inf; "),
        ("spectrum={times=[1],range=[0,1],bins=0}", r"spectrum\.bins: .*, got 0; .*bins = 240"),
        (
            "spectrum={times=[],range=[0,1],bins=1}",
            r"spectrum\.times: .*one time or more, got \[\]",
        ),
        (
            "spectrum={times=[60],range=[0,1],bins=1}",
            r"spectrum\.times: expected times up to T = 50, got \[60\.0\]",
        ),
        ("grid.sedes=3", r"grid\.sedes: unknown key, got 3; did you mean grid\.seeds\?"),
        ("grid.T=3", r"grid\.T: unknown key, got 3; T belongs in \[dynamics\]"),
        ("grid.entropy=3", r"grid\.entropy: .*; entropy belongs above the first \[section\]"),
        ("colour=3", r"colour: unknown key, got 3; remove it; the keys here are name, .*dynamics"),
        ("dynamics.method=", r'dynamics\.method: expected "flow" or "descent", got nothing; '),
        ("dynamics.method=adam", r"dynamics\.method: .*, got 'adam'; "),
        ("dynamics.method=descent", r"dynamics\.learning_rate: expected .*, got nothing; write"),
        (
            "dynamics.learning_rate=0.1",
            r"dynamics\.learning_rate: .* \"flow\" .*, got 0\.1; remove",
        ),
        ("dynamics.tolerance=0", r"dynamics\.tolerance: .* above 0, got 0; .*= 1e-2"),
        ("dynamics.T=-1", r"dynamics\.T: expected the time .* above 0 .*, got -1; .*T = 300"),
        ("dynamics.T=" + "0x" + "f" * 4000, r"dynamics\.T: .*, got an integer of thousands of "),
        ("dynamics.constrained_time=0.0", r"dynamics\.constrained_time: .*, got 0\.0; "),
        ("instances=sparse", r"instances: expected \"auto\", \"dense\" or .*, got 'sparse'; "),
        ("dynamics.dtype=float16", r"dynamics\.dtype: .*, got 'float16'; "),
        (
            "dynamics.tolerance=1e-7",
            r'dynamics\.dtype: expected "float64" with a tolerance below 1e-06',
        ),
        (
            "dynamics.stop_at_minimum=1",
            r"dynamics\.stop_at_minimum: expected whether .*, got 1; .*= true",
        ),
        ("dynamics.T=2020-01-01", r"dynamics\.T: .*, got datetime\.date\(2020, 1, 1\); "),
    ],
)
def test_one_mistake_gives_one_line(override: str, said: str) -> None:
    (problem,) = problems_of(override)
    assert re.match(said, problem, re.DOTALL), problem


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (DESCENT, 'with method = "descent" (it is the flow'),
        (("instances=conditional",), 'with instances = "conditional" (eigenpairs'),
        (SPIKED, 'with model = "spiked_matrix_tensor" (minima'),
    ],
)
def test_a_stop_at_minima_is_refused_where_none_would_be_found(
    overrides: tuple[str, ...], said: str
) -> None:
    (problem,) = problems_of(*overrides, "dynamics.stop_at_minimum=true")
    assert problem.startswith("dynamics.stop_at_minimum: expected nothing " + said), problem
    assert problem.endswith("remove it")


def test_a_stop_at_minima_is_physics_where_it_is_wanted() -> None:
    """So stores of campaigns that do not know the key, or do not want it, are extended."""
    assert read("dynamics.stop_at_minimum=false").physics() == read().physics()
    differences = read("dynamics.stop_at_minimum=true").differences(read().physics())
    assert differences == ["dynamics.stop_at_minimum: nothing in the store, True in the campaign"]


def test_tolerance_is_refused_with_descent() -> None:
    (problem,) = problems_of(*DESCENT, "dynamics.tolerance=1e-3")
    assert problem.startswith('dynamics.tolerance: expected nothing with method = "descent"')


def test_too_many_runs_are_refused() -> None:
    (problem,) = problems_of(
        "grid.seeds=1000000", "grid.alpha={start = 1, stop = 2, num = 101}", "grid.N=[64]"
    )
    assert problem.startswith("grid.seeds: expected at most 100000000 runs in all, got 1000000 se")


def test_replicas_are_counted_among_the_runs() -> None:
    (problem,) = problems_of("grid.replicas=10000", "grid.seeds=10000")
    assert (
        ", got 10000 seeds x 10000 replicas x 8 labels of (alpha, N, init) = 800000000; " in problem
    )


def test_too_many_times_are_refused() -> None:
    times = ", ".join(map(str, range(1001)))
    (problem,) = problems_of(f"trajectory.times=[{times}]", "dynamics.T=2000")
    assert problem == "trajectory.times: expected at most 1000 times, got 1001; use fewer"


def test_all_mistakes_of_a_trajectory_are_told_at_once() -> None:
    problems = problems_of(
        *DESCENT,
        "dynamics.tolerance=1e-3",
        "dynamics.T=40",
        "grid.replicas=-1",
        "trajectory.times=[50, 1, -1]",
        "trajectory.hessian=1",
        "trajectory.density=true",
    )
    assert sorted(line.split(": ")[0] for line in problems) == [
        "dynamics.tolerance",
        "grid.replicas",
        "trajectory.density",
        "trajectory.hessian",
        "trajectory.times",
        "trajectory.times",
        "trajectory.times[2]",
    ]


def test_the_end_of_the_runs_has_as_many_digits_as_a_time() -> None:
    campaign = read("dynamics.T=0.66666666666666663", "trajectory.times=[0.66666666666666663]")
    assert campaign.trajectory is not None
    assert campaign.trajectory.times == (0.6666666667,)


def test_all_mistakes_are_told_at_once() -> None:
    problems = problems_of(
        "colour=1",
        "entropy=true",
        "parameters.b=2",
        "grid.alpha=[0.001, -1, 2, 2]",
        "grid.N=[64, 1, 64]",
        "grid.seeds=0",
        "grid.inits=[]",
        "dynamics.method=descent",
        "dynamics.tolerance=-1",
        "dynamics.T=0",
        "nonsense",
    )
    assert {line.split(": ")[0] for line in problems} == {
        "override",
        "colour",
        "entropy",
        "parameters.b",
        "grid.alpha",
        "grid.alpha[1]",
        "grid.N",
        "grid.N[1]",
        "grid.seeds",
        "grid.inits",
        "dynamics.learning_rate",
        "dynamics.tolerance",
        "dynamics.T",
    }
    assert sum(line.startswith("grid.alpha: ") for line in problems) == 2  # twice 2.0, and M = 0
    assert len(problems) == 14


def test_an_empty_file_is_told_every_key_and_section() -> None:
    problems = problems_of(text="")
    assert [line.split(":")[0] for line in problems] == [
        "name",
        "model",
        "entropy",
        "parameters",
        "grid",
        "dynamics",
    ]


def test_the_message_counts_and_lists() -> None:
    with pytest.raises(CampaignError) as caught:
        read("grid.seeds=0", "entropy=-1")
    lines = str(caught.value).splitlines()
    assert lines[0] == "campaign test: 2 problems"
    assert lines[1:] == [f"  {problem}" for problem in caught.value.problems]
    assert str(CampaignError("x", ["y"])) == "campaign x: 1 problem\n  y"
    again = pickle.loads(pickle.dumps(caught.value))
    assert (again.source, again.problems) == ("test", caught.value.problems)


def test_values_and_keys_are_shown_short() -> None:
    deep: dict[str, object] = {}
    for _ in range(100_000):
        deep = {"a": deep}
    assert len(show_value(deep)) < 200
    assert len(show_value("x" * 10_000)) < 100
    assert len(show_value(list(range(10_000)))) < 100
    assert show_key(("grid", "alpha", 1)) == "grid.alpha[1]"
    assert show_key(("a b", "c")) == '"a b".c'
    assert len(show_key(("x" * 1000,))) == 60


def test_every_key_says_what_it_expects_and_how_it_is_written() -> None:
    fields = campaign_fields()
    assert {("grid", "alpha", "num"), ("trajectory", "times", "num")} <= fields.keys()
    for path, field in fields.items():
        assert field.description, path
        assert field.examples, path
        assert path[-1] in field.examples[0], path


# Files that went through anything


# fmt: off
TOKENS = st.sampled_from([
    "true", "nan", "-inf", "1e400", "0", "-1", "10000000000", "[]", "{}", "[[]]", "''", '"a"',
    "2020-01-01", "[1, [2]]", "\x00", "\ud7ff", "= =", "{start=1}",
    "{start=1,stop=2,num=10000000000}", "{start=1,stop=2,num=3}", "[grid]", "[[grid]]",
    "a.b.c = 1", "grid.alpha = 2", "# no", "0x" + "f" * 5000,
])
# fmt: on


KEYS = [".".join(path) for path in campaign_fields()]


@st.composite
def mutated_files(draw: st.DrawFn) -> str:
    """The small campaign after some cuts, insertions, and lines swapped or given new values."""
    lines = FLOW.splitlines()
    for _ in range(draw(st.integers(1, 5))):
        line = draw(st.integers(0, len(lines) - 1))
        match draw(st.sampled_from(["value", "key", "insert", "drop", "swap", "cut", "type"])):
            case "value":
                lines[line] = lines[line].partition("=")[0] + "= " + draw(TOKENS)
            case "key":
                lines[line] = draw(st.text(max_size=5)) + " =" + lines[line].partition("=")[2]
            case "insert":
                lines.insert(line, draw(TOKENS))
            case "drop":
                lines[line] = ""
            case "swap":
                other = draw(st.integers(0, len(lines) - 1))
                lines[line], lines[other] = lines[other], lines[line]
            case "cut":
                lines[line] = lines[line][: draw(st.integers(0, 20))]
            case "type":
                place = draw(st.integers(0, 20))
                lines[line] = lines[line][:place] + draw(st.text(max_size=3)) + lines[line][place:]
    return "\n".join(lines)


def read_or_complain(text: str, *overrides: str) -> tuple[str, ...]:
    """What is said against a campaign; a campaign that passes is a good one."""
    try:
        campaign = parse_campaign(text, source="mutated", overrides=overrides)
    except CampaignError as error:
        return error.problems
    assert campaign.measurements().min() >= 1
    assert parse_campaign(campaign.to_toml(), source="its own text") == campaign
    return ()


@settings(max_examples=300, deadline=None, derandomize=True, database=None)
@given(mutated_files())
def test_a_mutated_file_is_valid_or_said_to_be_wrong(text: str) -> None:
    for problem in read_or_complain(text):
        assert re.search("expected|unknown key", problem)
        assert "; " in problem


@pytest.mark.slow
@settings(max_examples=3000, deadline=None, derandomize=True, database=None)
@given(mutated_files(), st.lists(st.tuples(st.sampled_from(KEYS), TOKENS), max_size=2))
def test_thousands_of_mutated_files_are_valid_or_said_to_be_wrong(
    text: str, overrides: list[tuple[str, str]]
) -> None:
    for problem in read_or_complain(text, *(f"{key}={value}" for key, value in overrides)):
        assert re.search("expected|unknown key", problem)
        assert "; " in problem


@settings(max_examples=200, deadline=None, derandomize=True, database=None)
@given(
    st.sampled_from(KEYS),
    st.one_of(TOKENS, st.text(max_size=8)),
)
def test_a_mutated_override_is_valid_or_said_to_be_wrong(key: str, value: str) -> None:
    for problem in read_or_complain(FLOW, f"{key}={value}"):
        assert FULL_LINE.fullmatch(problem)
