//! Where models come from and where they are kept, as the environment says it to every tool of Hugging Face.

use crate::error::{Error, Result};
use std::path::{Path, PathBuf};
use std::time::Duration;
use url::Url;

/// Where models come from, where they are kept, and how long to wait.
#[derive(Clone)]
pub struct HubOptions {
    /// Root of the hub's addresses, without a slash at the end.
    pub endpoint: String,
    /// The directory of `models--org--name`.
    pub cache_dir: PathBuf,
    /// For private and gated models. It is sent to the endpoint and to no other host.
    pub token: Option<String>,
    /// Nothing is requested: what is not in the cache is an error.
    pub offline: bool,
    /// A server that sends nothing for so long has failed.
    pub timeout: Duration,
    /// The same for questions about a file, which some servers never answer: then the file itself is asked for.
    pub etag_timeout: Duration,
    /// The pause before the first retry; each further one is twice as long.
    pub first_pause: Duration,
}

/// The hub itself.
const ENDPOINT: &str = "https://huggingface.co";
/// The waiting time of the Python client.
const TIMEOUT: Duration = Duration::from_secs(10);
const FIRST_PAUSE: Duration = Duration::from_secs(1);

impl HubOptions {
    /// Reads the variables that the Python client reads: `HF_ENDPOINT`, `HF_HUB_CACHE`, `HF_HOME`, `HF_TOKEN`, `HF_TOKEN_PATH`,
    /// `HF_HUB_OFFLINE`, `HF_HUB_DOWNLOAD_TIMEOUT`, `HF_HUB_ETAG_TIMEOUT` and their older names.
    ///
    /// # Errors
    /// [`Error::Argument`] if one of them cannot be used, [`Error::Download`] if there is neither a home directory nor `HF_HOME`.
    pub fn from_env() -> Result<Self> {
        Self::from_variables(&|name| std::env::var(name).ok(), std::env::home_dir().as_deref())
    }

    /// [`from_env`](Self::from_env) with the variables and the home directory as values.
    ///
    /// # Errors
    /// As [`from_env`](Self::from_env).
    pub fn from_variables(variable: &dyn Fn(&str) -> Option<String>, home: Option<&Path>) -> Result<Self> {
        let set = |name: &str| variable(name).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty());
        let path = |name: &str| set(name).map(|value| expanded(&value, home));
        let is_on =
            |name: &str| set(name).is_some_and(|value| matches!(value.to_uppercase().as_str(), "1" | "ON" | "YES" | "TRUE"));
        let caches = path("XDG_CACHE_HOME").or_else(|| Some(home?.join(".cache")));
        let Some(hf_home) = path("HF_HOME").or_else(|| Some(caches?.join("huggingface"))) else {
            let message = "there is no home directory to keep models in".to_owned();
            return Err(Error::Download { what: "models".to_owned(), message, hint: Some("set HF_HOME to a folder for them") });
        };
        let token_file = path("HF_TOKEN_PATH").unwrap_or_else(|| hf_home.join("token"));
        let token = if is_on("HF_HUB_DISABLE_IMPLICIT_TOKEN") {
            None
        } else {
            set("HF_TOKEN").or_else(|| set("HUGGING_FACE_HUB_TOKEN")).or_else(|| read_token(&token_file))
        };
        Ok(HubOptions {
            endpoint: endpoint(set("HF_ENDPOINT"))?,
            cache_dir: path("HF_HUB_CACHE").or_else(|| path("HUGGINGFACE_HUB_CACHE")).unwrap_or_else(|| hf_home.join("hub")),
            token: token.map(checked_token).transpose()?,
            offline: is_on("HF_HUB_OFFLINE") || is_on("TRANSFORMERS_OFFLINE"),
            timeout: seconds("HF_HUB_DOWNLOAD_TIMEOUT", set)?,
            etag_timeout: seconds("HF_HUB_ETAG_TIMEOUT", set)?,
            first_pause: FIRST_PAUSE,
        })
    }
}

fn expanded(path: &str, home: Option<&Path>) -> PathBuf {
    match (path.strip_prefix("~/"), home) {
        (Some(rest), Some(home)) => home.join(rest),
        _ => PathBuf::from(path),
    }
}

fn read_token(path: &Path) -> Option<String> {
    #[allow(clippy::disallowed_methods, reason = "this module is part of platform")]
    let text = std::fs::read_to_string(path).ok()?;
    Some(text.trim().to_owned()).filter(|token| !token.is_empty())
}

/// A token that cannot be part of a header would fail with a message about headers.
fn checked_token(token: String) -> Result<String> {
    if token.chars().all(|character| character.is_ascii_graphic()) {
        return Ok(token);
    }
    Err(Error::Argument {
        what: "HF_TOKEN (or the token file)",
        expected: "one word of printable ASCII characters".to_owned(),
        found: "white space or other characters inside it".to_owned(),
    })
}

fn endpoint(value: Option<String>) -> Result<String> {
    let Some(value) = value else { return Ok(ENDPOINT.to_owned()) };
    let text = if value.contains("://") { value.clone() } else { format!("https://{value}") };
    match Url::parse(&text) {
        Ok(url) if matches!(url.scheme(), "http" | "https") && url.host_str().is_some() => {
            Ok(text.trim_end_matches('/').to_owned())
        }
        _ => Err(Error::Argument {
            what: "HF_ENDPOINT",
            expected: "the address of a hub, such as https://huggingface.co".to_owned(),
            found: format!("`{value}`"),
        }),
    }
}

fn seconds(name: &'static str, set: impl Fn(&str) -> Option<String>) -> Result<Duration> {
    let Some(text) = set(name) else { return Ok(TIMEOUT) };
    let value = text.parse::<f64>().ok().filter(|&value| value > 0.0);
    value.and_then(|value| Duration::try_from_secs_f64(value).ok()).ok_or_else(|| Error::Argument {
        what: name,
        expected: "seconds, more than 0".to_owned(),
        found: format!("`{text}`"),
    })
}
