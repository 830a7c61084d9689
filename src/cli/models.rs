//! `moebius models`: what is on this machine.

use super::failure::{self, Failure};
use super::model::{self, BUNDLED_NAME, CONFIG};
use super::model_name;
use super::talk::talk;
use super::{bundled, table};
use anyhow::Result;
use clap::{Args, Subcommand};
use moebius::checkpoint::{ModelFiles, WeightStore};
use moebius::error::human_bytes;
use moebius::gpu::{Device, DeviceChoice, DeviceOptions};
use moebius::model::format_names;
use moebius::platform;
use moebius::quant::{QuantChoice, QuantFormat};
use serde_json::{Value, json};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

const EXAMPLES: &str = "\
Examples:
  moebius models                                 the bundled model and those in the hub's cache
  moebius models ~/models                        and those in this folder
  moebius models fetch allenai/OLMoE-1B-7B-0924  what `moebius run` would download, without running it
  moebius models rm allenai/OLMoE-1B-7B-0924     frees its place in the cache";

/// What a model that does not fit as it is may be quantised to.
const SMALLER: [&str; 2] = ["q8_0", "q4_0"];

/// List the models on this machine, fetch one, or remove one.
#[derive(Args)]
#[command(after_help = EXAMPLES, args_conflicts_with_subcommands = true)]
pub struct ModelsArgs {
    #[command(subcommand)]
    action: Option<Action>,
    /// Folders that are models, or have models in them.
    #[arg(value_name = "FOLDER")]
    folders: Vec<PathBuf>,
    /// Print a JSON array on stdout.
    #[arg(long)]
    json: bool,
}

#[derive(Subcommand)]
enum Action {
    /// The same as without a word.
    #[command(alias = "ls", hide = true)]
    List,
    /// Download a model into the hub's cache, as `moebius run` would, and print its folder.
    Fetch {
        /// A hub id (org/name), or an address of the hub.
        name: String,
    },
    /// Remove models from the hub's cache.
    Rm {
        /// Hub ids (org/name).
        #[arg(required = true)]
        names: Vec<String>,
    },
}

/// A model in a list.
struct Row {
    name: String,
    directory: PathBuf,
    bytes: u64,
    /// Family and formats of the weights; or why it cannot be run.
    facts: Result<Facts, String>,
}

struct Facts {
    family: &'static str,
    formats: Vec<&'static str>,
    /// Weights as stored, and in each of [`SMALLER`].
    weight_bytes: u64,
    smaller_bytes: [u64; SMALLER.len()],
}

impl ModelsArgs {
    pub async fn run(&self) -> Result<ExitCode> {
        let mut stdout = anstream::stdout().lock();
        match &self.action {
            Some(Action::Fetch { name }) => writeln!(stdout, "{}", model::directory(Some(name)).await?.display())?,
            Some(Action::Rm { names }) => {
                for name in names {
                    if name == BUNDLED_NAME && !Path::new(name).exists() {
                        let problem = "the bundled model is part of the program, and cannot be removed";
                        return Err(Failure::new(problem, "`moebius models` lists what is in the hub's cache").into());
                    }
                    let id = model_name::understood(name)?;
                    if Path::new(&id).is_dir() {
                        let problem = format!("{id} is a folder, and only models in the hub's cache are removed");
                        return Err(Failure::new(problem, "delete the folder yourself if it is not needed").into());
                    }
                    let bytes = platform::remove_cached_model(&id)?;
                    talk!("removed  {id}, {}", human_bytes(bytes));
                }
            }
            None | Some(Action::List) => self.list(&mut stdout).await?,
        }
        Ok(ExitCode::SUCCESS)
    }

    async fn list(&self, stdout: &mut dyn Write) -> Result<()> {
        let mut rows = Vec::new();
        let name = BUNDLED_NAME.to_owned();
        rows.push(match bundled::directory() {
            Ok(directory) => Row::read(name, directory, None).await,
            // It is listed all the same: somebody may look for it.
            Err(error) => Row { name, directory: PathBuf::new(), bytes: 0, facts: Err(failure::in_a_line(&error)) },
        });
        for cached in platform::cached_models()? {
            let mut row = Row::read(cached.id, cached.directory, Some(cached.bytes)).await;
            if !cached.is_whole {
                row.facts = Err("not all weights are here; `moebius models fetch` goes on".to_owned());
            }
            rows.push(row);
        }
        for folder in &self.folders {
            let found = models_in(folder)?;
            for directory in found {
                rows.push(Row::read(directory.display().to_string(), directory, None).await);
            }
        }
        let memory = Device::open(&DeviceOptions::from_env(DeviceChoice::Auto)).await.ok();
        let memory = memory.and_then(|device| device.caps().memory_bytes);
        if self.json {
            let list: Vec<Value> = rows.iter().map(|row| row.json(memory)).collect();
            writeln!(stdout, "{}", Value::from(list))?;
        } else {
            let cells: Vec<Vec<String>> = rows.iter().map(|row| row.cells(memory)).collect();
            let header = ["model", "on disk", "architecture", "weights", "fits on the device"];
            write!(stdout, "{}", table::aligned(&header, &cells))?;
        }
        Ok(())
    }
}

fn is_model(folder: &Path) -> bool {
    platform::file_length(&folder.join(CONFIG)).is_some()
}

/// `folder` itself, or the folders in it that are models.
fn models_in(folder: &Path) -> Result<Vec<PathBuf>> {
    if is_model(folder) {
        return Ok(vec![folder.to_owned()]);
    }
    let found: Vec<PathBuf> = platform::folders_in(folder)?.into_iter().filter(|inner| is_model(inner)).collect();
    if found.is_empty() {
        let problem = format!("{} is no model and has none in it", folder.display());
        return Err(Failure::new(problem, format!("a model is a folder with {CONFIG} and safetensors files")).into());
    }
    Ok(found)
}

impl Row {
    async fn read(name: String, directory: PathBuf, bytes: Option<u64>) -> Row {
        let facts = Facts::read(&directory).await.map_err(|error| error.to_string());
        let bytes = bytes.unwrap_or_else(|| {
            let names = platform::file_names(&directory);
            names.iter().filter_map(|name| platform::file_length(&directory.join(name))).sum()
        });
        Row { name, directory, bytes, facts }
    }

    fn cells(&self, memory: Option<u64>) -> Vec<String> {
        let name_and_size = [self.name.clone(), human_bytes(self.bytes)];
        let rest = match &self.facts {
            Ok(facts) => [facts.family.to_owned(), facts.formats.join(", "), facts.verdict(memory)],
            Err(problem) => [String::new(), String::new(), problem.clone()],
        };
        name_and_size.into_iter().chain(rest).collect()
    }

    fn json(&self, memory: Option<u64>) -> Value {
        let facts = self.facts.as_ref().ok();
        json!({
            "model": self.name,
            "directory": self.directory,
            "bytes": self.bytes,
            "architecture": facts.map(|facts| facts.family),
            "formats": facts.map(|facts| &facts.formats),
            "weight_bytes": facts.map(|facts| facts.weight_bytes),
            "fits": facts.map(|facts| facts.verdict(memory)),
            "problem": self.facts.as_ref().err(),
        })
    }
}

impl Facts {
    async fn read(directory: &Path) -> moebius::Result<Facts> {
        let store = WeightStore::Checkpoint(ModelFiles::open(directory).await?.weights().await?);
        let spec = store.spec();
        let (formats, weight_bytes) = format_names(&store, spec, QuantChoice::default())?;
        let smaller_bytes =
            SMALLER.map(|name| spec.weight_bytes(QuantFormat::find(name).expect("the names are those of formats")));
        Ok(Facts { family: spec.family, formats, weight_bytes, smaller_bytes })
    }

    /// Whether the weights fit in so much memory; a context comes on top.
    fn verdict(&self, memory: Option<u64>) -> String {
        let Some(memory) = memory else { return "unknown".to_owned() };
        let mut smaller = SMALLER.iter().zip(self.smaller_bytes);
        match smaller.find(|(_, bytes)| *bytes <= memory) {
            _ if self.weight_bytes <= memory => "yes".to_owned(),
            Some((name, _)) => format!("with --quant {name}"),
            None => "no".to_owned(),
        }
    }
}
