//! From a name to a loaded model.

use super::{Engine, LoadEvent, LoadOptions};
use crate::error::Result;
use crate::platform::{self, Listener};
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

/// The directory of the model `name`, fetched as [`Engine::open`] does. A model that cannot be run is refused by its `config.json`, before its
/// weights are fetched. Dropping the future ends a download, and what has arrived stays, so that the next call goes on from there.
///
/// # Errors
/// [`Error::Argument`](crate::Error::Argument) if `name` is neither a directory nor a name on the hub,
/// [`Error::Download`](crate::Error::Download) with what the hub or the network said, and what is wrong with `config.json`.
pub async fn fetch_model(name: &str, on_event: &mut Listener<'_, LoadEvent>) -> Result<PathBuf> {
    let check_config = |text: &str| ModelSpec::parse(text, "config.json").map(drop);
    platform::fetch_model(name, check_config, &mut |fetching| on_event(LoadEvent::Fetching(fetching))).await
}
