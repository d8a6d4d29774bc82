//! The `netdp` command.

use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser as _;
use netdp::cli::Cli;
use netdp::commands;
use netdp::entry;
use netdp::error::{BAD_INPUT, Error};

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    match start(cli) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            complain(&error.line());
            ExitCode::from(error.exit_code())
        }
    }
}

fn start(mut cli: Cli) -> Result<u8, Error> {
    log(cli.global.verbose);
    let caller = entry::enter(&mut cli)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Error::system("starting the runtime"))?;
    runtime.block_on(commands::run(cli, caller))
}

/// Help goes to standard output; what is wrong with the command line becomes one line.
fn usage(error: &clap::Error) -> ExitCode {
    if !error.use_stderr() {
        // Nothing can be said to somebody who closed standard output.
        let _ = error.print();
        return ExitCode::SUCCESS;
    }
    let text = error.render().to_string();
    if error.kind() == clap::error::ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        complain("error: no command is given: netdp --help lists them");
        return ExitCode::from(BAD_INPUT);
    }
    let what: Vec<&str> =
        text.lines().take_while(|line| !line.starts_with("Usage:")).map(str::trim).collect();
    let what = what.join(" ").split_whitespace().collect::<Vec<_>>().join(" ");
    let what = what.trim_end_matches("For more information, try '--help'.").trim_end();
    complain(&format!("{what}; netdp --help says more"));
    ExitCode::from(BAD_INPUT)
}

fn complain(line: &str) {
    // Nothing can be said to somebody who closed standard error.
    let _ = writeln!(std::io::stderr(), "{line}");
}

fn log(verbose: u8) {
    let level = match verbose {
        0 => return,
        1 => "netdp=info",
        _ => "netdp=debug",
    };
    tracing_subscriber::fmt().with_env_filter(level).with_writer(std::io::stderr).without_time().init();
}
