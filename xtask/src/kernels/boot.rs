//! A kernel in qemu, its CPUs emulated: KVM is not there on every machine that tests.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use super::package::Kernel;
use crate::command::shown;
use crate::test::{Tally, parse_result};

/// A kernel that hangs is given up; on a machine that does nothing else, one takes less than three minutes.
const TIMEOUT: Duration = Duration::from_secs(1200);

/// What the first process prints when all tests have run.
const END: &str = "# end";

/// Boots it, passes on what it prints, and adds up the results of its `programs` test programs.
pub(crate) fn run(kernel: &Kernel, initramfs: &Path, programs: usize) -> Result<Tally> {
    println!("kernel {}", kernel.release);
    let mut qemu = Command::new("qemu-system-x86_64");
    qemu.args(["-accel", "tcg,thread=multi", "-cpu", "max", "-m", "2048", "-smp", "2"]);
    qemu.args(["-nodefaults", "-nographic", "-no-reboot", "-serial", "stdio"]);
    qemu.arg("-kernel").arg(&kernel.image).arg("-initrd").arg(initramfs);
    qemu.args(["-append", "console=ttyS0 quiet panic=-1 mitigations=off"]);
    println!("+ {}", shown(&qemu));
    let start = Instant::now();
    let mut child = qemu.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().context("running qemu")?;
    let watched = watch(&mut child, start);
    let cpu = cpu_time(child.id());
    // It may be off already.
    let _ = child.kill();
    child.wait()?;
    let Watched { mut tally, results, ended } = watched?;
    let (wall, cpu) = (start.elapsed().as_secs(), cpu?.as_secs());
    println!("kernel {}: {tally} in {wall} s, {cpu} s of them processor time", kernel.release);
    if !ended || results != programs {
        println!("kernel {}: {results} of {programs} test programs ended", kernel.release);
        tally.failed += 1;
    }
    Ok(tally)
}

/// What a process, which may have ended but not been waited for, has used (proc_pid_stat(5)).
fn cpu_time(pid: u32) -> Result<Duration> {
    const TICKS_PER_SECOND: u64 = 100;
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).context("reading qemu's times")?;
    // utime and stime are the 14th and 15th field; the 2nd may have spaces in it.
    let (_, rest) = stat.rsplit_once(')').context("no times of qemu")?;
    let ticks: u64 =
        rest.split_whitespace().skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
    Ok(Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND))
}

struct Watched {
    tally: Tally,
    results: usize,
    ended: bool,
}

fn watch(child: &mut Child, start: Instant) -> Result<Watched> {
    let mut watched = Watched { tally: Tally::default(), results: 0, ended: false };
    let stdout = BufReader::new(child.stdout.take().context("no stdout")?);
    let (sender, lines) = mpsc::channel();
    let reader = thread::spawn(move || {
        // Bytes: what a kernel prints when it dies need not be text.
        for line in stdout.split(b'\n').map_while(Result::ok) {
            if sender.send(String::from_utf8_lossy(&line).trim_end().to_owned()).is_err() {
                break;
            }
        }
    });
    loop {
        match lines.recv_timeout(TIMEOUT.saturating_sub(start.elapsed())) {
            Ok(line) => {
                println!("{line}");
                watched.ended |= line == END;
                if let Some(one) = parse_result(&line) {
                    watched.tally += one;
                    watched.results += 1;
                }
            }
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {
                println!("not done after {} s", TIMEOUT.as_secs());
                child.kill()?;
                break;
            }
        }
    }
    drop(lines);
    reader.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    Ok(watched)
}
