//! Reads one VIP that is in no file: a source of VIPs writes it as the file would have it, so that the same rules hold
//! and the same words tell what is wrong.

use std::path::Path;

use super::{
    Config, EncapSource, Errors, Vip, keys,
    list_file::Files,
    lists,
    load::{self, Needed, Scope},
    section::Section,
    vip,
};

/// What of a configuration decides whether a VIP is right.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Reader {
    encap_source: EncapSource,
    has_redis: bool,
}

impl Reader {
    /// For VIPs beside those of a configuration.
    #[must_use]
    pub const fn new(config: &Config) -> Self {
        Self {
            encap_source: config.node.encap_source,
            has_redis: config.redis.is_some(),
        }
    }

    /// The VIP in a text that holds one `[[vip]]` and nothing else. No file that it names is read.
    ///
    /// # Errors
    /// Everything that is wrong, at once.
    pub fn read(&self, text: &str) -> Result<Option<Vip>, Errors> {
        let (document, mut report) = load::document(text, "")?;
        let top = Section::new(String::new(), 0, &document, &keys::SINGLE, &mut report);
        let around = lists::Around {
            directory: Path::new(""),
            scope: Scope::Offline,
        };
        let vips = vip::read_all(
            &top,
            Some(self.encap_source),
            (self.has_redis, Needed::None),
            (&around, &mut Files::default()),
            &mut report,
        );
        report.finish(vips).map(|mut vips| vips.pop())
    }
}
