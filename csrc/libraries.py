"""The compiled libraries of the kernels, and how ninja builds them; setuptools' commands (commands.py) run this.

They are plain C++17 and CUDA with a C interface, so that one library serves every version of Python and torch. The one
for CPUs is built by whatever compiler is there ($CXX, else c++, g++ or clang++), once per instruction set; the one for
GPUs wherever there is an nvcc ($CUDA_HOME, else on PATH or in /usr/local/cuda), for RELVLM_CUDA_ARCH ("90", "80;90"),
else for the GPUs of this machine. RELVLM_CUDA=0 leaves it out.
"""

import os
import platform
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
FOLDER = Path("build/kernels")

FLAGS = ["-std=c++17", "-O3", "-fPIC", "-fno-math-errno", "-ffp-contract=fast", "-Wall"]
X86_INSTRUCTIONS = {  # name: (flags, bytes of a vector)
    "avx512": (["-mavx2", "-mfma", "-mavx512f", "-mavx512dq", "-mavx512vl"], 64),
    "avx2": (["-mavx2", "-mfma"], 32),
}

NVCC_FLAGS = ["-std=c++17", "-O3", "-Xcompiler=-fPIC", "-cudart=static"]
ARCHITECTURES = ["80", "90"]  # where neither the user nor a GPU says which; the oldest is that of the kernels
# Elements of the attention kernels. ptxas -O3 interleaves so many of fp32's products that registers spill.
ELEMENTS = {"float": ["-Xptxas=-O1"], "Bfloat16": [], "Half": []}
WIDTHS = (128, 96, 80, 64, 32)  # of their heads; those that take the longest come first


class BuildFailed(Exception):
    pass


@dataclass
class Library:
    """One to build: the compiler with what all sources share, (source, flags) of each object, the linker's flags."""

    name: str
    compiler: list[str]
    objects: dict[str, tuple[Path, list[str]]]
    link: list[str]
    how: str  # for the record

    @property
    def path(self) -> Path:
        return FOLDER / f"_{self.name}.so"

    def ninja(self) -> str:
        """Its part of a build file."""
        objects = {FOLDER / self.name / f"{name}.o": job for name, job in self.objects.items()}
        lines = [
            f"rule compile_{self.name}",
            f"  command = {quoted(self.compiler)} $flags -MMD -MF $out.d -c $in -o $out",
            "  depfile = $out.d",
            "  deps = gcc",
            f"rule link_{self.name}",
            f"  command = {quoted(self.compiler)} -shared {quoted(self.link)} $in -o $out",
        ]
        for path, (source, flags) in objects.items():
            lines += [f"build {path}: compile_{self.name} {source}", f"  flags = {quoted(flags)}"]
        return "\n".join([*lines, f"build {self.path}: link_{self.name} {' '.join(map(str, objects))}", ""])


def quoted(command: list[str]) -> str:
    return shlex.join(command).replace("$", "$$")


def run(command: list[str]) -> str:
    """What the command prints; raises BuildFailed with that where it fails."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        raise BuildFailed(f"{shlex.join(command)}\n{done.stdout}")
    return done.stdout


def compiler() -> list[str]:
    """Command of the C++ compiler; raises BuildFailed where there is none."""
    named = shlex.split(os.environ.get("CXX", ""))
    candidates = [named] if named else [["c++"], ["g++"], ["clang++"]]
    for command in candidates:
        if shutil.which(command[0]):
            return command
    raise BuildFailed(f"no C++ compiler: {', '.join(c[0] for c in candidates)} not found")


def compiles(command: list[str]) -> bool:
    """Whether the compiler takes these flags and links."""
    probe = FOLDER / "probe.cpp"
    probe.write_text("int probe() { return 0; }\n")
    try:
        run([*command, "-shared", "-fPIC", str(probe), "-o", str(probe.with_suffix(".so"))])
    except BuildFailed:
        return False
    return True


def sources(kind: str) -> Path:
    """Their folder, from the one that is built in: what ninja writes down is the same wherever a checkout lies."""
    return Path(os.path.relpath(HERE / kind))


def cpu_library() -> Library:
    """Raises BuildFailed where there is no compiler."""
    cxx = [*compiler(), *FLAGS]
    openmp = compiles([*cxx, "-fopenmp"])
    cxx += ["-fopenmp"] if openmp else ["-Wno-unknown-pragmas"]
    usable = {"baseline": ([], 16)}
    if platform.machine().lower() in ("x86_64", "amd64"):
        usable |= {n: (f, b) for n, (f, b) in X86_INSTRUCTIONS.items() if compiles([*cxx, *f])}
    objects = {
        f"{file}_{name}": (sources("cpu") / f"{file}.cpp", [*flags, f"-DRELVLM_ISA={name}", f"-DRELVLM_VECTOR={size}"])
        for name, (flags, size) in usable.items() for file in ("kernels", "fused_rows")
    }  # fmt: skip
    has = [f"-DRELVLM_HAS_{name.upper()}" for name in usable]
    objects |= {name: (sources("cpu") / f"{name}.cpp", has) for name in ("api", "fused_rows_api", "layout", "plan")}
    threads = "OpenMP" if openmp else "no OpenMP (the compiler has no -fopenmp)"
    return Library("cpu", cxx, objects, [], f"built with {cxx[0]} for {', '.join(usable)}; {threads}")


def cuda_library() -> Library:
    """Raises BuildFailed where nvcc is not there or not wanted, or RELVLM_CUDA_ARCH names no architectures."""
    command = nvcc()
    targets = architectures(command)
    *others, newest = targets
    codes = [f"-gencode=arch=compute_{x},code=sm_{x}" for x in others]
    codes += [f"-gencode=arch=compute_{newest},code=[sm_{newest},compute_{newest}]"]
    objects = {
        f"attention_{element}_{width}": (
            sources("cuda") / "attention.cu",
            [*codes, *flags, f"-DRELVLM_ELEMENT={element}", f"-DRELVLM_WIDTHS(one)=one({width})"],
        )
        for element, flags in ELEMENTS.items() for width in WIDTHS
    }  # fmt: skip
    objects |= {name: (sources("cuda") / f"{name}.cu", codes) for name in ("pair", "pool", "plan", "layout", "api")}
    names = ", ".join(f"sm_{x}" for x in targets)
    how = f"built with {command} for {names} and, compiled at first use, what is newer"
    return Library("cuda", [command, *NVCC_FLAGS], objects, codes, how)


def nvcc() -> str:
    """Path of the CUDA compiler; raises BuildFailed where it is not there or not wanted."""
    if os.environ.get("RELVLM_CUDA") == "0":
        raise BuildFailed("RELVLM_CUDA=0")
    homes = filter(None, (os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH")))
    paths = [*(f"{home}/bin/nvcc" for home in homes), "nvcc", "/usr/local/cuda/bin/nvcc"]
    found = next(filter(None, map(shutil.which, paths)), None)
    if not found:
        raise BuildFailed("no nvcc in $CUDA_HOME, on PATH or in /usr/local/cuda")
    return found


def architectures(command: str) -> list[str]:
    """What to build for, oldest first: what the user says, else this machine's GPUs if nvcc knows them all."""
    wanted = os.environ.get("RELVLM_CUDA_ARCH", "")
    if not re.fullmatch(r"(\d+[af]?(;\d+[af]?)*)?", wanted):
        raise BuildFailed(f'RELVLM_CUDA_ARCH={wanted}: expected numbers such as "90" or "80;90"')
    if wanted:
        return sorted(wanted.split(";"), key=number)
    here = gpus()
    known = run([command, "--list-gpu-arch"]).split() if here else []
    usable = here and all(f"compute_{x}" in known and number(x) >= number(ARCHITECTURES[0]) for x in here)
    return here if usable else ARCHITECTURES


def gpus() -> list[str]:
    """Architectures of this machine's GPUs, such as "90"; none where it has no nvidia-smi."""
    try:
        found = run(["nvidia-smi", "--query-gpu=compute_cap", "--format=csv,noheader"])
    except (BuildFailed, OSError):
        return []
    return sorted(set(re.findall(r"^\d+$", found.replace(".", ""), re.M)), key=number)


def number(architecture: str) -> int:
    return int(architecture.rstrip("af"))


def ninja() -> str:
    """Path of ninja; raises BuildFailed where there is none."""
    found = shutil.which("ninja")
    if not found:
        raise BuildFailed("no ninja (pip install ninja)")
    return found


def build_file(libraries: list[Library]) -> Path:
    """Writes what ninja builds them from."""
    file = FOLDER / "build.ninja"
    write(file, "\n".join([f"builddir = {FOLDER}", *(library.ninja() for library in libraries), ""]).encode())
    return file


def build(file: Path, library: Library) -> bytes:
    """The library, brought up to date; raises BuildFailed with the command that failed and what it printed."""
    try:
        print(run([ninja(), "-f", str(file), str(library.path)]), end="")
    except BuildFailed as error:
        raise BuildFailed(re.split(r"FAILED: .*\n", str(error), maxsplit=1)[-1]) from None
    return library.path.read_bytes()


def write(path: Path, content: bytes) -> None:
    """Under another name first: a process may have the old library mapped."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_bytes(content)
    temporary.replace(path)


def build_all(package: Path, for_editors: bool) -> list[str]:
    """Builds both into `package`; how, or "not built: " and why not, of the CPU's and of CUDA's."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    planned = {"cpu": attempt(cpu_library), "cuda": attempt(cuda_library)}
    file = build_file([x for x in planned.values() if isinstance(x, Library)])
    records = [install(library, file, package / f"_{name}.so") for name, library in planned.items()]
    if for_editors and shutil.which("ninja"):
        write(Path("compile_commands.json"), run([ninja(), "-f", str(file), "-t", "compdb"]).encode())
    return records


def attempt(of: Callable[[], Library]) -> Library | BuildFailed:
    try:
        return of()
    except BuildFailed as error:
        return error


def install(library: Library | BuildFailed, file: Path, to: Path) -> str:
    """Builds to `to`, and writes beside it how, or why not, which is returned as well."""
    try:
        if isinstance(library, BuildFailed):
            raise library
        write(to, build(file, library))
        record = library.how
    except (BuildFailed, OSError) as error:
        to.unlink(missing_ok=True)  # one from other sources would be worse than none
        record = f"not built: {error}"
    write(to.with_suffix(".txt"), f"{record}\n".encode())
    return record
