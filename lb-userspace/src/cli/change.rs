//! What the verbs that change something have in common.

use std::path::PathBuf;

use super::{Outcome, output, status::Form};
use crate::{
    api::{
        Base, Changed,
        client::{Client, ClientError},
    },
    config::DEFAULT_API_SOCKET,
};

/// Whom to ask, on what the change is based, and how to tell.
#[derive(Debug, clap::Args)]
pub(super) struct Options {
    /// Socket of the daemon
    #[arg(long, value_name = "PATH", default_value = DEFAULT_API_SOCKET)]
    pub(super) socket: PathBuf,
    /// Refuse if anything has changed since this generation [default: the one at the start of this command]
    #[arg(long, value_name = "N")]
    generation: Option<u64>,
    /// Form of the output; field names of json are stable
    #[arg(short, long, value_enum, default_value_t)]
    pub(super) output: Form,
}

impl Options {
    /// The daemon.
    pub(super) fn client(&self) -> Client {
        Client::new(&self.socket)
    }

    /// What the change is based on: what was said, or what there is now.
    pub(super) async fn base(&self, client: &Client) -> Result<Base, ClientError> {
        let generation = match self.generation {
            Some(generation) => generation,
            None => client.generation().await?,
        };
        Ok(Base::Generation(generation))
    }

    /// What the change is based on, of a command that fits whatever there is: what was said, if anything.
    pub(super) const fn base_if_given(&self) -> Base {
        match self.generation {
            Some(generation) => Base::Generation(generation),
            None => Base::Any,
        }
    }

    /// Tells what became of a change: `done`, or that it was so already.
    pub(super) fn tell(
        &self,
        result: Result<Changed, ClientError>,
        done: &str,
    ) -> anyhow::Result<Outcome> {
        let changed = match result {
            Ok(changed) => changed,
            Err(ClientError::Refused {
                message, findings, ..
            }) if !findings.is_empty() => {
                output::message(message);
                return Ok(Outcome::Refused);
            }
            Err(error) => return Err(error.into()),
        };
        let Changed {
            changed: is_new,
            generation,
        } = changed;
        match self.output {
            Form::Json => {
                let text = serde_json::to_string_pretty(&changed)?;
                output::data(format_args!("{text}\n"))?;
            }
            Form::Table => {
                let what = if is_new {
                    done
                } else {
                    "nothing to do: it is so already"
                };
                output::message(format_args!("{what} (generation {generation})"));
            }
        }
        Ok(Outcome::Done)
    }
}

/// Runs one conversation with the daemon.
pub(super) fn converse<T>(conversation: impl Future<Output = T>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    Ok(runtime.block_on(conversation))
}
