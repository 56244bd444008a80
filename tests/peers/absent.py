"""Public names of transformers that are not here, by area and by the reason why.

`tests/test_transformers_names.py` keeps the lists true: a name that transformers adds must be decided on, and
one that is added here must be removed from its list.
"""

ABSENT: dict[str, dict[str, str]] = {
    "models": {
        "models are not split over processes here": """
            barrier_after_gathered_checkpoint_save ep_plan fsdp_plan fsdp_size
            gather_sharded_state_dict_for_save init_parallel_plans
            is_distributed_loading_by_transformers maybe_distribute_model pp_plan
            prepare_distribute_model save_distributed_checkpoint should_save_on_this_rank
            supports_context_parallel supports_pp_plan supports_tp_plan tp_plan tp_size
        """,
        "adapters are added from outside: peft.get_peft_model(model, config)": """
            active_adapters add_adapter delete_adapter disable_adapters enable_adapters
            enable_peft_hotswap get_adapter_state_dict load_adapter set_adapter
        """,
        "serving many users is vLLM's work: docs/vllm.md": """
            continuous_batching_context_manager destroy_cached_continuous_batching_manager
            generate_batch init_continuous_batching
        """,
        "all models are decoders; get_decoder exists": """
            get_encoder set_encoder
        """,
        "upload the folder of save_pretrained: hf upload": """
            push_to_hub
        """,
        "no code from the Hub is run here": """
            is_custom_code is_remote_code load_custom_generate register_for_auto_class
        """,
        "kernels come with the package, none from the Hub": """
            kernel_config set_use_kernels use_kernels
        """,
        "there is one implementation of experts": """
            get_correct_experts_implementation get_experts_implementation set_experts_implementation
        """,
        "they raise NotImplementedError for these models in transformers": """
            get_position_embeddings resize_position_embeddings
        """,
        "a part of transformers' own generate": """
            adjust_generation_fn create_masks_for_generate generation_config_class get_compiled_call
            heal_tokens warn_if_padding_and_no_attention_mask
        """,
        "a part of transformers' own loading, tying or recording": """
            can_record_outputs get_correct_attn_implementation get_expanded_tied_weights_keys
            get_init_context get_parameter_or_buffer initialize_weights is_backend_compatible
            mark_tied_weights_as_initialized named_non_persistent_buffers retrieve_modules_from_names
        """,
    },
    "configs": {
        "models are not split over processes here": """
            base_model_ep_plan base_model_fsdp_plan base_model_pp_plan base_model_tp_plan
        """,
        "the constructor checks and completes rope_parameters; models without rotation have none": """
            convert_rope_params_to_dict default_rope_type default_theta ignore_keys_at_rope_validation
            nested_rope_parameter_keys rope_scaling standardize_rope_params validate_rope
        """,
        "the constructor checks all fields": """
            validate validate_architecture validate_layer_type validate_output_attentions
            validate_token_ids
        """,
        "a part of transformers' own reading and writing of configs": """
            allow_global_per_layer_attribute_access base_config_key default_config_fields
            dict_dtype_to_str extra_config_files extra_files get_config_dict get_mtp_config
            is_heterogeneous per_layer_attributes serialize_explicit_per_layer_config
            sub_configs_defaults update_from_string
        """,
        "no code from the Hub is run here": """
            is_custom_code is_remote_code register_for_auto_class
        """,
        "upload the folder of save_pretrained: hf upload": """
            push_to_hub
        """,
    },
    "generation_configs": {
        "a way to choose tokens that is not here; values that ask for it are an error": """
            get_generation_mode
        """,
        "upload the folder of save_pretrained: hf upload": """
            push_to_hub
        """,
        "a part of transformers' own reading and writing of configs": """
            dict_dtype_to_str transformers_version
        """,
    },
    "outputs": {
        "the older name of the cache of models that are not here": """
            cache_params
        """,
        "outputs are not dicts, and transformers refuses to remove values or to set defaults too": """
            clear copy fromkeys move_to_end popitem setdefault update
        """,
    },
    "caches": {
        "states of other kinds are read through cache.state(layer, kind)": """
            activate_past_recording get_conv_state get_recurrent_state has_previous_state is_linear
            is_recording_past update_conv_state update_indexer update_recurrent_state
        """,
        "caches stay on the device of the model": """
            offload offloading prefetch
        """,
        "a part of transformers' own generate and masks": """
            early_initialization get_mask_sizes get_query_offset is_croppable is_dummy is_sliding
            layer_class_to_replicate
        """,
    },
    "forward": {
        "all models are decoders: there are no encoders here": """
            encoder_attention_mask encoder_hidden_states
        """,
        "of Gemma 4 without a head, for speed only; models with a head accept it": """
            logits_to_keep
        """,
        "of Qwen3-VL: there are texts here, no images": """
            deepstack_visual_embeds visual_pos_masks
        """,
    },
    "generate": {},
    "from_pretrained": {},
    "save_pretrained": {},
    "top_level": {
        "there are no models of this kind here": """
            AutoBackbone AutoFeatureExtractor AutoImageProcessor AutoModelForAudioClassification
            AutoModelForAudioFrameClassification AutoModelForAudioTokenization AutoModelForAudioXVector
            AutoModelForCTC AutoModelForDecision AutoModelForDepthEstimation
            AutoModelForDocumentQuestionAnswering AutoModelForImageClassification
            AutoModelForImageMatting AutoModelForImageSegmentation AutoModelForImageTextToText
            AutoModelForImageToImage AutoModelForInstanceSegmentation AutoModelForKeypointDetection
            AutoModelForKeypointMatching AutoModelForMaskGeneration AutoModelForMaskedImageModeling
            AutoModelForMaskedLM AutoModelForMultimodalLM AutoModelForMultipleChoice
            AutoModelForNextSentencePrediction AutoModelForNormalEstimation AutoModelForObjectDetection
            AutoModelForPointmapEstimation AutoModelForPoseEstimation AutoModelForPreTraining
            AutoModelForRNNT AutoModelForSemanticSegmentation
            AutoModelForSpeechSeq2Seq AutoModelForTDT AutoModelForTableQuestionAnswering
            AutoModelForTableRecognition AutoModelForTextEncoding AutoModelForTextRecognition
            AutoModelForTextToSpectrogram AutoModelForTextToWaveform AutoModelForTimeSeriesPrediction
            AutoModelForUniversalSegmentation AutoModelForVideoClassification
            AutoModelForVisualQuestionAnswering AutoModelForZeroShotImageClassification
            AutoModelForZeroShotObjectDetection AutoProcessor AutoVideoProcessor
            FEATURE_EXTRACTOR_MAPPING IMAGE_PROCESSOR_MAPPING MODEL_FOR_AUDIO_CLASSIFICATION_MAPPING
            MODEL_FOR_AUDIO_FRAME_CLASSIFICATION_MAPPING MODEL_FOR_AUDIO_TOKENIZATION_MAPPING
            MODEL_FOR_AUDIO_XVECTOR_MAPPING MODEL_FOR_BACKBONE_MAPPING
            MODEL_FOR_CAUSAL_IMAGE_MODELING_MAPPING MODEL_FOR_CTC_MAPPING MODEL_FOR_DECISION_MAPPING
            MODEL_FOR_DEPTH_ESTIMATION_MAPPING MODEL_FOR_DOCUMENT_QUESTION_ANSWERING_MAPPING
            MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING MODEL_FOR_IMAGE_MAPPING
            MODEL_FOR_IMAGE_MATTING_MAPPING MODEL_FOR_IMAGE_SEGMENTATION_MAPPING
            MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING MODEL_FOR_IMAGE_TO_IMAGE_MAPPING
            MODEL_FOR_INSTANCE_SEGMENTATION_MAPPING MODEL_FOR_KEYPOINT_DETECTION_MAPPING
            MODEL_FOR_KEYPOINT_MATCHING_MAPPING MODEL_FOR_MASKED_IMAGE_MODELING_MAPPING
            MODEL_FOR_MASKED_LM_MAPPING MODEL_FOR_MASK_GENERATION_MAPPING
            MODEL_FOR_MULTIMODAL_LM_MAPPING MODEL_FOR_MULTIPLE_CHOICE_MAPPING
            MODEL_FOR_NEXT_SENTENCE_PREDICTION_MAPPING MODEL_FOR_NORMAL_ESTIMATION_MAPPING
            MODEL_FOR_OBJECT_DETECTION_MAPPING MODEL_FOR_POINTMAP_ESTIMATION_MAPPING
            MODEL_FOR_POSE_ESTIMATION_MAPPING MODEL_FOR_PRETRAINING_MAPPING MODEL_FOR_RETRIEVAL_MAPPING
            MODEL_FOR_RNNT_MAPPING MODEL_FOR_SEMANTIC_SEGMENTATION_MAPPING
            MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING
            MODEL_FOR_TABLE_QUESTION_ANSWERING_MAPPING MODEL_FOR_TABLE_RECOGNITION_MAPPING
            MODEL_FOR_TDT_MAPPING MODEL_FOR_TEXT_ENCODING_MAPPING MODEL_FOR_TEXT_RECOGNITION_MAPPING
            MODEL_FOR_TEXT_TO_SPECTROGRAM_MAPPING MODEL_FOR_TEXT_TO_WAVEFORM_MAPPING
            MODEL_FOR_TIME_SERIES_CLASSIFICATION_MAPPING MODEL_FOR_TIME_SERIES_PREDICTION_MAPPING
            MODEL_FOR_TIME_SERIES_REGRESSION_MAPPING MODEL_FOR_UNIVERSAL_SEGMENTATION_MAPPING
            MODEL_FOR_VIDEO_CLASSIFICATION_MAPPING MODEL_FOR_VISUAL_QUESTION_ANSWERING_MAPPING
            MODEL_FOR_ZERO_SHOT_IMAGE_CLASSIFICATION_MAPPING
            MODEL_FOR_ZERO_SHOT_OBJECT_DETECTION_MAPPING PROCESSOR_MAPPING VIDEO_PROCESSOR_MAPPING
        """,
        "one class of tokenizers serves all models": """
            TOKENIZER_MAPPING
        """,
        "there is no such pipeline here": """
            AnyToAnyPipeline AudioClassificationPipeline AutomaticSpeechRecognitionPipeline
            CsvPipelineDataFormat DecisionPipeline DepthEstimationPipeline
            DocumentQuestionAnsweringPipeline FillMaskPipeline ImageClassificationPipeline
            ImageFeatureExtractionPipeline ImageSegmentationPipeline ImageTextToTextPipeline
            JsonPipelineDataFormat KeypointMatchingPipeline MaskGenerationPipeline
            ObjectDetectionPipeline PipedPipelineDataFormat PipelineDataFormat
            TableQuestionAnsweringPipeline TextDiffusionStreamer TextToAudioPipeline
            VideoClassificationPipeline ZeroShotAudioClassificationPipeline
            ZeroShotClassificationPipeline ZeroShotImageClassificationPipeline
            ZeroShotObjectDetectionPipeline
        """,
        "other quantizations: GGUF's types and bitsandbytes are here": """
            AqlmConfig AutoRoundConfig AwqConfig BayesianDetectorConfig BitNetQuantConfig CompileConfig
            CompressedTensorsConfig ContinuousBatchingConfig EetqConfig FPQuantConfig FbgemmFp8Config
            FineGrainedFP8Config FourOverSixConfig Fp8QuantizedLayer GPTQConfig GemmaQuantizationConfig
            GgufConfig HQQQuantizedLayer HiggsConfig HqqConfig MetalConfig Mxfp4Config NVFP4Config
            QuantizedCache QuantoConfig QuantoQuantizedLayer QuarkConfig SinqConfig SpQRConfig
            SynthIDTextWatermarkingConfig TorchAoConfig VptqConfig WatermarkingConfig
        """,
        "PreTrainedModel is the base of all models": """
            ArceePreTrainedModel BertPreTrainedModel BloomPreTrainedModel Cohere2PreTrainedModel
            CoherePreTrainedModel DeepseekV2PreTrainedModel DeepseekV3PreTrainedModel
            Ernie4_5PreTrainedModel Ernie4_5_MoePreTrainedModel Exaone4PreTrainedModel
            FalconH1PreTrainedModel FalconPreTrainedModel Gemma2PreTrainedModel GemmaPreTrainedModel
            Glm4MoePreTrainedModel
            Glm4PreTrainedModel GptOssPreTrainedModel GraniteMoePreTrainedModel
            GraniteMoeHybridPreTrainedModel GraniteMoeSharedPreTrainedModel GranitePreTrainedModel
            HunYuanDenseV1PreTrainedModel KimiLinearPreTrainedModel Lfm2MoePreTrainedModel
            Lfm2PreTrainedModel Mamba2PreTrainedModel
            LlamaPreTrainedModel MiniMaxM2PreTrainedModel Ministral3PreTrainedModel
            MistralPreTrainedModel MixtralPreTrainedModel NemotronHPreTrainedModel NemotronPreTrainedModel
            ModernBertPreTrainedModel NomicBertPreTrainedModel Olmo2PreTrainedModel
            OlmoePreTrainedModel Phi3PreTrainedModel PhiPreTrainedModel PhimoePreTrainedModel
            Qwen2MoePreTrainedModel Qwen2PreTrainedModel Qwen3MoePreTrainedModel
            Qwen3NextPreTrainedModel Qwen3PreTrainedModel SeedOssPreTrainedModel
            SmolLM3PreTrainedModel StableLmPreTrainedModel Starcoder2PreTrainedModel
            FalconMambaPreTrainedModel JambaPreTrainedModel MambaPreTrainedModel T5PreTrainedModel
            UMT5PreTrainedModel Dots1PreTrainedModel GPTNeoXPreTrainedModel GlmPreTrainedModel
            Jais2PreTrainedModel OlmoPreTrainedModel Olmo3PreTrainedModel HunYuanMoEV1PreTrainedModel
            ExaoneMoePreTrainedModel
        """,
        "of T5 and UMT5 there are no heads that GGUF files do not contain": """
            T5ForQuestionAnswering T5ForSequenceClassification T5ForTokenClassification
            UMT5ForQuestionAnswering UMT5ForSequenceClassification UMT5ForTokenClassification
        """,
        "parts of models are shared: torchgguf.nn.RMSNorm": """
            GPTNeoXLayer Qwen2RMSNorm
        """,
        "a cache consists of states here: torchgguf.nn.State": """
            BertLayer CacheLayerMixin DynamicIndexedLayer DynamicLayer EncoderDecoderCache
            StaticIndexedLayer StaticLayer StaticSlidingWindowLayer
        """,
        "there are no watermarks here": """
            BayesianDetectorModel SynthIDTextWatermarkDetector SynthIDTextWatermarkLogitsProcessor
            WatermarkDetector WatermarkLogitsProcessor
        """,
        "serving many users is vLLM's work: docs/vllm.md": """
            ContinuousBatchingManager ContinuousMixin
        """,
        "options of generate do what this class does": """
            AlternatingCodebooksLogitsProcessor ClassifierFreeGuidanceLogitsProcessor
            EncoderNoRepeatNGramLogitsProcessor EncoderRepetitionPenaltyLogitsProcessor TopHLogitsWarper
            UnbatchedClassifierFreeGuidanceLogitsProcessor WhisperTimeStampLogitsProcessor
        """,
        "one class of tokenizers serves all models: torchgguf.Tokenizer": """
            BasicTokenizer BertTokenizerLegacy PythonBackend SPIECE_UNDERLINE SentencePieceBackend
            WordpieceTokenizer
        """,
        "tools of transformers' own code": """
            AttentionInterface CONFIG_NAME MODEL_CARD_NAME TensorType WEIGHTS_NAME add_end_docstrings
            add_start_docstrings enable_full_determinism get_values is_apex_available is_av_available
            is_bitsandbytes_available is_datasets_available is_faiss_available is_matplotlib_available
            is_mlx_available is_phonemizer_available is_psutil_available is_py3nvml_available
            is_pyctcdecode_available is_sacremoses_available is_scipy_available
            is_sentencepiece_available is_sklearn_available is_speech_available is_timm_available
            is_tokenizers_available is_torch_available is_torch_hpu_available is_torch_mlu_available
            is_torch_musa_available is_torch_neuroncore_available is_torch_npu_available
            is_torch_supa_available is_torch_xla_available is_torch_xpu_available
            is_torchvision_available is_vision_available
        """,
        "TODO": """
            BertForMaskedLM BertForMultipleChoice BertForNextSentencePrediction BertForPreTraining
            BertLMHeadModel ModernBertForMaskedLM ModernBertForMultipleChoice NomicBertForMaskedLM
        """,
    },
}
