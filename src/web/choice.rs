//! Whether the reference is quicker, where a software device plays the GPU: as the program decides it.

use super::json::{thrown, to_js};
use super::{JsFiles, JsResult, mount};
use crate::LoadOptions;
use crate::bench::{self, ReferenceChoice};
use serde_json::json;
use wasm_bindgen::prelude::*;

#[wasm_bindgen]
extern "C" {
    #[wasm_bindgen(typescript_type = "ReferenceMemory")]
    pub type JsReferenceMemory;
    #[wasm_bindgen(typescript_type = "Comparison")]
    pub type JsComparison;
}

/// Whether a model fits in f32 with room to spare, and what its measurement is kept under. Of its files `config.json` is enough where it does not.
#[wasm_bindgen(js_name = referenceMemory)]
pub async fn reference_memory(files: JsFiles, name: Option<String>) -> JsResult<JsReferenceMemory> {
    let mount = mount(&files, name.as_deref());
    let choice = bench::reference_choice(mount.model(), &LoadOptions::default()).await.map_err(thrown)?;
    let found = match choice {
        ReferenceChoice::IfQuicker((family, parameters)) => {
            json!({ "fits": true, "model": format!("{family}, {parameters} parameters, moebius {}", env!("CARGO_PKG_VERSION")) })
        }
        ReferenceChoice::TooLarge { needed_bytes, room_bytes } => {
            json!({ "fits": false, "neededBytes": needed_bytes, "roomBytes": room_bytes })
        }
        ReferenceChoice::Never => json!({ "fits": false }),
    };
    Ok(to_js(&found).unchecked_into())
}

/// Lets the model write on WebGPU and on the reference in turns: tokens per second of both, and whether the second is enough quicker.
#[wasm_bindgen(js_name = compareWithReference)]
pub async fn compare_with_reference(files: JsFiles, name: Option<String>) -> JsResult<JsComparison> {
    let mount = mount(&files, name.as_deref());
    let made = bench::compare_with_reference(mount.model(), &LoadOptions::default(), (String::new(), 0)).await.map_err(thrown)?;
    let [gpu, reference] = made.tokens_per_second;
    Ok(to_js(&json!({ "gpu": gpu, "reference": reference, "prefersReference": made.prefers_reference() })).unchecked_into())
}
