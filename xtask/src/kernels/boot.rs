//! A kernel in qemu, its CPUs emulated: KVM is not there on every machine that tests.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};
use std::{fmt, fs, thread};

use anyhow::{Context as _, Result};

use super::package::Kernel;
use crate::command::shown;
use crate::test::{Tally, parse_result};

/// A kernel that hangs is given up. On two CPUs that do nothing else, both kernels take less than two minutes.
const TIMEOUT: Duration = Duration::from_secs(600);

/// What the first process prints before each test program, with its name and arguments behind it, and after the last.
const PROGRAM: &str = "# ";
const END: &str = "# end";

/// What the tests on a kernel did.
pub(crate) struct Report {
    release: String,
    /// Of all test programs.
    pub(crate) tally: Tally,
    /// Each that ended, and how long it took.
    programs: Vec<(String, Duration)>,
    wall: Duration,
    /// qemu's processor time.
    cpu: Duration,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { release, tally, programs, wall, cpu } = self;
        let (wall, cpu) = (wall.as_secs(), cpu.as_secs());
        write!(f, "kernel {release}: {tally} in {wall} s ({cpu} s of processor time)")?;
        for (name, took) in programs {
            write!(f, ", {name} {} s", took.as_secs())?;
        }
        Ok(())
    }
}

/// Boots it, passes on what it prints, and adds up the results of its `expected` test programs.
pub(crate) fn run(kernel: &Kernel, initramfs: &Path, expected: usize) -> Result<Report> {
    let mut qemu = Command::new("qemu-system-x86_64");
    qemu.args(["-accel", "tcg,thread=multi", "-cpu", "max", "-m", "2048", "-smp", "2"]);
    qemu.args(["-nodefaults", "-display", "none", "-no-reboot", "-serial", "stdio"]);
    qemu.arg("-kernel").arg(&kernel.image).arg("-initrd").arg(initramfs);
    qemu.args(["-append", "console=ttyS0 quiet panic=-1 mitigations=off no_timer_check"]);
    println!("+ {}", shown(&qemu));
    let start = Instant::now();
    let mut child = qemu.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().context("running qemu")?;
    let watched = watch(&mut child, start, &kernel.release);
    let cpu = cpu_time(child.id());
    // It may be off already.
    let _ = child.kill();
    child.wait()?;
    let Watched { mut tally, programs, ended, .. } = watched?;
    if !ended || programs.len() != expected {
        println!("{}: {} of {expected} test programs ended", kernel.release, programs.len());
        tally.failed += 1;
    }
    Ok(Report { release: kernel.release.clone(), tally, programs, wall: start.elapsed(), cpu: cpu? })
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

#[derive(Default)]
struct Watched {
    tally: Tally,
    programs: Vec<(String, Duration)>,
    running: Option<(String, Instant)>,
    ended: bool,
}

impl Watched {
    fn line(&mut self, line: &str) {
        self.ended |= line == END;
        if let Some(program) = line.strip_prefix(PROGRAM) {
            let name = program.split(' ').next().unwrap_or_default();
            self.running = Some((name.to_owned(), Instant::now()));
        }
        if let Some(tally) = parse_result(line) {
            // What a program has beside the core is not skipped: the machine's own kernel runs it.
            self.tally += Tally { skipped: 0, ..tally };
            self.programs.extend(self.running.take().map(|(name, start)| (name, start.elapsed())));
        }
    }
}

fn watch(child: &mut Child, start: Instant, release: &str) -> Result<Watched> {
    let mut watched = Watched::default();
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
                println!("{release}: {line}");
                watched.line(&line);
            }
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {
                println!("{release}: not done after {} s", TIMEOUT.as_secs());
                child.kill()?;
                break;
            }
        }
    }
    drop(lines);
    reader.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    Ok(watched)
}
