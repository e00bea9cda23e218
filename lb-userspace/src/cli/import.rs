//! `weir import`

use std::{
    fs,
    io::{self, Read as _},
    net::IpAddr,
    path::{Path, PathBuf},
};

use serde::Serialize;

use super::{Outcome, output, status::Form};
use crate::import::{self, Error, Imported, Kind, Node, Remark};

const EXAMPLES: &str = "\
Examples:
  weir import keepalived /etc/keepalived/keepalived.conf > weir.toml
  ipvsadm -Sn | weir import ipvsadm - > weir.toml
  weir import keepalived keepalived.conf --interface eth0 --encap-source 10.0.0.1 > weir.toml
  weir import keepalived keepalived.conf -o json | jq '.remarks[] | select(.kind == \"left\")'

The configuration goes to standard output. Each line that is not in it, or not quite, goes to standard error with the
reason and what to do: `not carried over`, `changed` (it is there as what comes nearest), `to be filled in`.

Exit codes: 0 all lines are carried over, 1 failed: nothing was written, 2 usage, 3 written, but not all lines were carried
over or something is to be filled in";

/// Turn another balancer's configuration into a weir.toml
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub(super) struct Args {
    /// What the file is
    #[arg(value_enum)]
    format: Format,
    /// The file; `-` for standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Interface that packets for the VIPs come by; can be given more than once [default: those of VRRP, or eth0]
    #[arg(long = "interface", value_name = "IF")]
    interfaces: Vec<String>,
    /// This node's own address, from which tunnelled packets are sent: one of each family
    #[arg(long, value_name = "ADDRESS")]
    encap_source: Vec<IpAddr>,
    /// Form of the output: the file, or json with the file and the remarks in it
    #[arg(short, long, value_enum, default_value_t)]
    output: Form,
}

/// Whose configuration it is.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Format {
    /// What `ipvsadm -Sn` (or `ipvsadm-save -n`) prints
    Ipvsadm,
    /// A keepalived.conf
    Keepalived,
}

/// The output as JSON.
#[derive(Serialize)]
struct Json<'a> {
    config: &'a str,
    vips: usize,
    remarks: &'a [Remark],
}

pub(super) fn run(args: &Args) -> anyhow::Result<Outcome> {
    let (text, name) = read(&args.file)?;
    let node = Node {
        interfaces: args.interfaces.clone(),
        encap_source: args.encap_source.clone(),
    };
    let imported = match args.format {
        Format::Ipvsadm => import::ipvsadm(&text, &name, &node),
        Format::Keepalived => {
            let directory = args.file.parent().unwrap_or(Path::new(""));
            import::keepalived(&text, &name, directory, &node)
        }
    };
    let Imported {
        config,
        vips,
        remarks,
    } = match imported {
        Ok(imported) => imported,
        Err(error) => {
            if let Error::Nothing { remarks, .. } = &error {
                remarks.iter().for_each(output::message);
            }
            return Err(error.into());
        }
    };
    match args.output {
        Form::Table => {
            output::data(&config)?;
            remarks.iter().for_each(output::message);
        }
        Form::Json => {
            let json = Json {
                config: &config,
                vips,
                remarks: &remarks,
            };
            output::listing(Form::Json, &json, String::new)?;
        }
    }
    let is_whole = remarks.iter().all(|remark| remark.kind == Kind::Changed);
    Ok(if is_whole {
        Outcome::Done
    } else {
        Outcome::Degraded
    })
}

/// The text, and what the file is called in remarks.
fn read(file: &Path) -> Result<(String, String), Error> {
    let is_stdin = file == Path::new("-");
    let name = if is_stdin {
        "stdin".to_owned()
    } else {
        file.display().to_string()
    };
    let text = if is_stdin {
        let mut text = String::new();
        io::stdin().lock().read_to_string(&mut text).map(|_| text)
    } else {
        fs::read_to_string(file)
    };
    match text {
        Ok(text) => Ok((text, name)),
        Err(source) => Err(Error::Read { file: name, source }),
    }
}
