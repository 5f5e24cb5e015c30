"""Time and memory of a phantom subject, and its sizes beside published ones, whose outlines lie inside its edge."""

import resource
import time

from qcord.phantom.body import AP, AREA, RL
from qcord.phantom.spec import preset
from qcord.phantom.subject import make_subject, redraw

REPEATS = 3

if __name__ == "__main__":
    for name in ("healthy", "compression", "lesion"):
        times = []
        for _ in range(REPEATS):
            start = time.perf_counter()
            subject = make_subject(preset(name))
            times.append(time.perf_counter() - start)
        start = time.perf_counter()
        redraw(subject, 1)
        every = time.perf_counter() - start
        start = time.perf_counter()
        redraw(subject, 1, series=("dwi", "MTS"))
        some = time.perf_counter() - start
        first, best = times[0], min(times)
        print(f"{name:<12} make: first {first:.1f} s, best {best:.1f} s; redraw {every:.2f} s, dwi + MTS {some:.2f} s")
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB")
    healthy = make_subject(preset("healthy").replace(series=("dwi",)))
    print("level   area [mm2]      AP [mm]       RL [mm]     (phantom, table)")
    for row, level in enumerate(healthy.sizes.itertuples()):
        if row < len(AP):
            pairs = ((level.area, AREA[row]), (level.ap, AP[row]), (level.rl, RL[row]))
            print(f"{level.level:<6}" + "".join(f"{a:7.2f} {b:6.2f}" for a, b in pairs))
