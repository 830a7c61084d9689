mod chat;
mod stop;
mod text_stream;
mod tokenizer;
