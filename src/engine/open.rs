//! From a name to a loaded model.

use super::{Engine, LoadEvent, LoadOptions};
use crate::checkpoint::ModelFiles;
use crate::checkpoint::gguf::Gguf;
use crate::error::Result;
use crate::platform::{self, Listener, Preview};
use crate::spec::ModelSpec;
use std::path::PathBuf;

impl Engine {
    /// Loads the model `name`: a directory, or the name of a repository on the Hugging Face hub (`org/name`, or `org/name@revision`), which
    /// is fetched into the usual cache unless it is there.
    ///
    /// # Errors
    /// As [`fetch_model`] and [`Engine::load`].
    pub async fn open(name: &str, options: LoadOptions) -> Result<Self> {
        Self::open_with(name, &options, &mut |_| {}).await
    }

    /// [`open`](Self::open), with the progress of fetching and loading.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub async fn open_with(name: &str, options: &LoadOptions, on_event: &mut Listener<'_, LoadEvent>) -> Result<Self> {
        let directory = fetch_model(name, on_event).await?;
        Self::load(&directory, options, on_event).await
    }
}

/// The directory of the model `name`, fetched as [`Engine::open`] does. A model that cannot be run is refused by its `config.json` or the
/// header of its GGUF file, before its weights are fetched. Dropping the future ends a download, and what has arrived stays, so that the next call goes on from there.
///
/// # Errors
/// [`Error::Argument`](crate::Error::Argument) if `name` is neither a directory nor a name on the hub,
/// [`Error::Download`](crate::Error::Download) with what the hub or the network said, and what is wrong with `config.json`.
pub async fn fetch_model(name: &str, on_event: &mut Listener<'_, LoadEvent>) -> Result<PathBuf> {
    platform::fetch_model(name, check, &mut |fetching| on_event(LoadEvent::Fetching(fetching))).await
}

/// Whether a model can be run, as far as that can be known before its weights are here.
fn check(preview: Preview<'_>) -> Result<()> {
    match preview {
        Preview::Config(text) => ModelSpec::parse(text, "config.json").map(drop),
        Preview::Gguf(parts) => {
            let read = async { ModelFiles::of_gguf(Gguf::of_parts(parts).await?).await?.check_weights().await };
            // Reading such a file is one request after the other on this thread, with nothing to wait for in between.
            platform::at_once(read).unwrap_or(Ok(()))
        }
    }
}
