//! `cargo xtask …`: everything that is done to weir's sources, behind one command.
#![forbid(unsafe_code)]
#![expect(
    clippy::print_stdout,
    reason = "the answers of the hidden lab commands are data"
)]

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use xtask::{
    bench, dashboard, demo, dist, fleet, fuzz, lab, limits, restarts, scale, setup, soak, tables,
    test, traffic,
};

/// weir's habits.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Find what weir needs to be built and tested, and install what is missing.
    Setup,
    /// Balance real HTTP requests over three backends in network namespaces, and show the shares.
    Demo(demo::Options),
    /// Run the unit, packet and end-to-end tests.
    Test(test::Options),
    /// Measure the packet's way in ns/packet.
    Bench(bench::Options),
    /// Measure the lookup tables' balance, disruption and build time; write plots and JSON.
    Tables(tables::Options),
    /// Change everything at random under thousands of connections, and count those that break.
    Soak(soak::Options),
    /// Run three nodes behind a router with BGP: announce, drain, kill, send flows from node to node under long-lived connections.
    Fleet(fleet::Options),
    /// Run random packets through the program and the host pipeline, and compare.
    Fuzz(fuzz::Options),
    /// Measure how long the control plane takes with 500 VIPs that share 20 backends.
    Scale(scale::Options),
    /// Run a fleet with things that go wrong, and draw the Grafana dashboard's panels into docs/pictures.
    Dashboard(dashboard::Options),
    /// Send more than rate limits allow, and count what comes through.
    Limits(limits::Options),
    /// Kill, reload and upgrade the daemon under traffic, and show that nothing is lost.
    Restarts(restarts::Options),
    /// Make a Debian package, a static tarball and a container image in target/dist, and try them.
    Dist(dist::Options),
    /// Answer HTTP and UDP with this backend's name (runs inside a lab host).
    #[command(hide = true)]
    LabServe(traffic::server::Options),
    /// Make HTTP requests and print who answered, as JSON (runs inside a lab host).
    #[command(hide = true)]
    LabFetch(traffic::client::Options),
    /// Hold many long-lived connections and print what becomes of them, as JSON (runs inside a lab host).
    #[command(hide = true)]
    LabConnect(traffic::lasting::client::Options),
    /// Make a lab and hold it until a signal comes (what the tests of the clean-up kill).
    #[command(hide = true)]
    LabHold,
}

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<ExitCode> {
    match command {
        Command::Setup => setup::run().map(|()| ExitCode::SUCCESS),
        Command::Demo(options) => demo::run(&options),
        Command::Test(options) => test::run(&options),
        Command::Bench(options) => bench::run(&options),
        Command::Tables(options) => tables::run(&options),
        Command::Soak(options) => soak::run(&options),
        Command::Fleet(options) => fleet::run(&options),
        Command::Fuzz(options) => fuzz::run(&options),
        Command::Scale(options) => scale::run(&options),
        Command::Dashboard(options) => dashboard::run(&options),
        Command::Limits(options) => limits::run(&options),
        Command::Restarts(options) => restarts::run(&options),
        Command::Dist(options) => dist::run(&options),
        Command::LabServe(options) => traffic::server::run(&options).map(|()| ExitCode::SUCCESS),
        Command::LabFetch(options) => {
            let summary = traffic::client::fetch(&options)?;
            println!("{}", serde_json::to_string(&summary)?);
            Ok(if summary.failed == 0 {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            })
        }
        Command::LabConnect(options) => traffic::lasting::client::run(&options, |event| {
            println!("{}", serde_json::to_string(event)?);
            Ok(())
        })
        .map(|()| ExitCode::SUCCESS),
        Command::LabHold => lab::hold().map(|()| ExitCode::SUCCESS),
    }
}
