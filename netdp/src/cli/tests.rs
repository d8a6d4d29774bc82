use clap::CommandFactory as _;

use super::*;

#[test]
fn the_command_line_is_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn flows_lists_by_default_and_takes_filters_in_both_places() {
    for line in [
        "netdp flows --proto tcp",
        "netdp flows ls --proto tcp",
        "netdp --json flows flush --dst 10.0.0.1:80",
    ] {
        assert!(Cli::try_parse_from(line.split(' ')).is_ok(), "{line}");
    }
}

#[test]
fn run_takes_options_of_its_command_after_two_dashes() {
    let cli =
        Cli::try_parse_from(["netdp", "run", "--name", "web", "-p", "8080:80", "--", "ls", "-l"]).unwrap();
    assert!(matches!(cli.command, Command::Run(Run { command, .. }) if command == ["ls", "-l"]));
    assert!(Cli::try_parse_from(["netdp", "run", "ls"]).is_err());
}
