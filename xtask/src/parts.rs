//! `cargo xtask parts`: builds third-party programs.

use anyhow::Result;

/// Third-party programs that some tests, and the demos on a real node and of restoring, need, built from pinned Go modules into the cache.
#[derive(clap::Args)]
#[command(
    after_help = "Each takes 2 to 6 minutes where nothing is cached, kubernetes-1.33 about 10. A test that needs one says so where it is missing;\n\
                        with RESURGAM_PARTS=1 that is an error."
)]
pub struct Args {
    /// Parts to build. Default: all.
    #[arg(value_parser = clap::builder::PossibleValuesParser::new(control_plane::parts()))]
    names: Vec<String>,
}

pub fn run(args: &Args) -> Result<()> {
    let all = || control_plane::parts().into_iter().map(str::to_owned).collect();
    let names: Vec<String> = if args.names.is_empty() { all() } else { args.names.clone() };
    for name in names {
        anstream::println!("{name}\t{}", control_plane::part(&name)?.display());
    }
    Ok(())
}
