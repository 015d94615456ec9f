"""Surroundings are read from the system's files and say None, not a guess, where these are absent."""

import json

from tokamak.observe.surroundings import Cache, Surroundings


def write(root, files):
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def test_what_the_system_tells_is_read(tmp_path):
    cpu0 = "sys/devices/system/cpu/cpu0/"
    write(
        tmp_path,
        {
            cpu0 + "cache/index0/level": "1\n",
            cpu0 + "cache/index0/type": "Data\n",
            cpu0 + "cache/index0/size": "32K\n",
            cpu0 + "cache/index0/shared_cpu_list": "0\n",
            cpu0 + "cache/index3/level": "3\n",
            cpu0 + "cache/index3/type": "Unified\n",
            cpu0 + "cache/index3/size": "16M\n",
            cpu0 + "cache/index3/shared_cpu_list": "0-3,8\n",
            cpu0 + "cache/index4/level": "4\n",  # says too little
            cpu0 + "cpufreq/scaling_governor": "powersave\n",
            "sys/kernel/mm/transparent_hugepage/enabled": "always [madvise] never\n",
            "sys/kernel/mm/transparent_hugepage/defrag": "always defer [madvise] never\n",
            "proc/meminfo": "AnonHugePages:  2048 kB\nHugePages_Total:  7\nSwapTotal: 4 kB\nSwapFree: 3 kB\n",
            "proc/sys/vm/swappiness": "60\n",
            "proc/self/limits": "Limit Soft Limit Hard Limit Units\nMax open files  1024  4096  files\nMax locked memory unlimited unlimited bytes\n",
        },
    )
    found = Surroundings.here(tmp_path / "sys", tmp_path / "proc")
    assert found.caches == (Cache(1, "Data", 32 << 10, 1), Cache(3, "Unified", 16 << 20, 5))
    assert (found.governor, found.huge_pages, found.huge_page_defrag) == ("powersave", "madvise", "madvise")
    assert (found.huge_page_nbytes, found.reserved_huge_pages) == (2 << 20, 7)
    assert (found.swap_nbytes, found.swap_free_nbytes, found.swappiness) == (4096, 3072, 60)
    assert found.overcommit is None
    assert found.limits == {"open_files": 1024, "locked_nbytes": None}


def test_what_it_does_not_tell_is_none(tmp_path):
    found = Surroundings.here(tmp_path, tmp_path)
    assert found.caches == ()
    assert found.governor is found.huge_pages is found.swap_nbytes is None
    assert found.limits == {}
    assert all(text for _, text in found.lines())


def test_here_it_is_plain_data():
    found = Surroundings.here()
    assert json.loads(json.dumps(found.facts()))["memory_nodes"] == list(found.memory_nodes)
    assert ("memory nodes", "a single node") in found.lines() or len(found.memory_nodes) > 1
