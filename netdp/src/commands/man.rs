//! `netdp man`: a page for netdp and one for each verb.

use std::path::Path;

use clap::CommandFactory as _;

use crate::cli::Cli;
use crate::error::Error;

/// Writes the pages into a directory, which is created.
pub fn run(dir: &Path) -> Result<(), Error> {
    let doing = format!("writing man pages to {}", dir.display());
    std::fs::create_dir_all(dir).map_err(Error::system(doing.clone()))?;
    clap_mangen::generate_to(Cli::command(), dir).map_err(Error::system(doing))
}
