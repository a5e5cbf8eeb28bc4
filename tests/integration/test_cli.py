"""The operator's command where it is more than one call of the API: large batches, files, terminals."""
import os
import pty
import resource
import subprocess

from stack import LOSE, MUSTER

BATCH = 20_000
PIECE = 5000


def run(stack, *args, **kw):
    env = {**os.environ, "MUSTER_ADMIN_URL": f"https://127.0.0.1:{stack.admin_port}",
           "MUSTER_ADMIN_TOKEN": stack.token, "MUSTER_CACERT": str(stack.cafile)}
    return subprocess.run([MUSTER, *map(str, args)], env=env, text=True, timeout=300, **kw)


def minted(stack, note):
    return {id for (id,) in stack.sql("SELECT id FROM token WHERE note = %s", note)}


def ids_of(text):
    return {int(line.split(",")[0]) for line in text.splitlines() if line and not line.startswith("id,")}


def drop(stack, note):
    stack.sql(LOSE + "DELETE FROM token WHERE note = %s", note)


def test_a_batch_of_tokens_into_a_file(stack, tmp_path):
    path = tmp_path / "tokens.csv"
    master, slave = pty.openpty()
    done = run(stack, "token", "create", "--template", "open", "--count", BATCH, "--csv", "--out", path,
               "--note", "batch", stdout=subprocess.PIPE, stderr=slave)
    os.close(slave)
    told = os.read(master, 65536).decode()
    os.close(master)
    assert done.returncode == 0 and done.stdout == ""
    assert f"{PIECE} tokens, " in told and f"100 %  {BATCH} tokens" in told and "[####" in told
    assert path.stat().st_mode & 0o777 == 0o600
    lines = path.read_text().splitlines()
    assert lines[0] == "id,token,serial" and len(lines) == BATCH + 1
    assert ids_of(path.read_text()) == minted(stack, "batch")
    drop(stack, "batch")


def test_a_file_that_is_there_is_kept_and_nothing_is_minted(stack, tmp_path):
    path = tmp_path / "tokens"
    path.write_text("told before\n")
    done = run(stack, "token", "create", "--template", "open", "--out", path, "--note", "kept", capture_output=True)
    assert done.returncode == 2 and "nothing was minted" in done.stderr
    assert path.read_text() == "told before\n" and not minted(stack, "kept")
    done = run(stack, "token", "create", "--template", "open", "--json", "--out", tmp_path / "new", "--note", "kept",
               capture_output=True)
    assert done.returncode == 2 and not (tmp_path / "new").exists() and not minted(stack, "kept")


def test_no_token_is_lost_when_the_file_cannot_be_written(stack, tmp_path):
    """The file may grow to half a megabyte: the piece that does not fit is told on standard output, no more are minted."""
    path = tmp_path / "tokens.csv"
    limit = 500_000
    done = run(stack, "token", "create", "--template", "open", "--count", 6 * PIECE, "--csv", "--out", path,
               "--note", "full", capture_output=True, restore_signals=False,
               preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)))
    assert done.returncode == 2 and "cannot be written" in done.stderr and "100 %" not in done.stderr
    whole = path.read_text().rsplit("\n", 1)[0]
    assert len(ids_of(done.stdout)) == PIECE
    assert ids_of(whole) | ids_of(done.stdout) == minted(stack, "full")
    assert len(minted(stack, "full")) < 6 * PIECE
    drop(stack, "full")
